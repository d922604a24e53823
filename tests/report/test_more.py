"""A new diagnostic comes onto the page by its one line in `__all__`, a new plot by its one line in `KINDS`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from tests.report.pictures import unpictured
from tests.synthetic import synthetic
from wiu_pyro import diagnostics, plots, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.report import Posterior, render
from wiu_pyro.report.figures import figure_section
from wiu_pyro.report.more import SHOWN, more_section

MEAN_FIELD = Posterior.read("mean-field", synthetic(seed=1).idata)
KFAC = Posterior.read("laplace-kfac", synthetic(seed=3, factorised=False, num_chains=2).idata)


def by_layer(idata):
    """Return how many weights of each layer are large.

    More than anybody reads.
    """
    layers = schema.layer_names(idata)
    chains = schema.dataset(idata, "posterior").sizes["chain"]
    values = np.arange(chains)[:, None] + np.arange(len(layers))
    out = xr.Dataset({"large_weights": (("chain", "layer"), values)}, coords={"layer": layers})
    out["large_weights"].attrs["long_name"] = "weights beyond 1"
    return out


def by_image(idata):
    """Return figures of several shapes."""
    return xr.Dataset(
        {"total": ((), 12.5), "each": ("obs_id", np.zeros(500)), "pairs": (("first", "second"), np.zeros((3, 3)))}
    )


def refused(idata):
    """Return what only some files can give."""
    raise SchemaError("Draws by hour are needed, but the file holds none. Keep them.")


def in_need(idata, threshold):
    """Return what nobody can know."""


def of_all(idatas):
    """Return one figure of each posterior."""
    return xr.Dataset({"rank": ("posterior", [2, 1])}, coords={"posterior": list(idatas)})


@pytest.fixture
def added(monkeypatch):
    """Put a diagnostic into the package as its one file and its one line would."""

    def put(question):
        monkeypatch.setattr(diagnostics, question.__name__, question, raising=False)
        monkeypatch.setattr(diagnostics, "__all__", [*diagnostics.__all__, question.__name__])

    return put


def test_every_diagnostic_there_is_has_its_place_on_the_page_or_comes_as_a_table():
    assert set(SHOWN) <= set(diagnostics.__all__)
    assert {table.title for table in more_section([MEAN_FIELD]).tables} == {
        name.replace("_", " ").capitalize() for name in diagnostics.__all__ if name not in SHOWN
    }


def test_a_new_diagnostic_by_layer_is_a_table_with_a_row_for_each_posterior_and_layer(added):
    added(by_layer)
    table = more_section([MEAN_FIELD, KFAC]).tables[-1]
    assert table.title == "By layer"
    assert table.columns == ("posterior · layer", "large weights")
    assert float(dict(table.rows)["mean-field · out"]) == 2
    assert float(dict(table.rows)["laplace-kfac · fc1"]) == 0.5  # mean over two chains
    assert table.notes == ("Return how many weights of each layer are large.", "large weights: weights beyond 1.")


def with_interval(idata):
    """Return a figure with its interval, which one layer does not have."""
    layers, nothing = schema.layer_names(idata), np.nan
    columns = {"slope": [-0.5, 0.25, 2], "slope_low": [-1, nothing, 1], "slope_high": [0, nothing, 3]}
    data = {name: ("layer", np.array(values, dtype=float)) for name, values in columns.items()}
    return xr.Dataset(data, coords={"layer": layers})


def test_a_figure_and_its_interval_are_one_column(added):
    added(with_interval)
    table = more_section([MEAN_FIELD]).tables[-1]
    assert table.columns == ("posterior · layer", "slope")
    assert [row[1] for row in table.rows] == ["-0.500\n-1.00 to 0", "0.250", "2.00\n1.00 to 3.00"]


def test_a_diagnostic_is_asked_once_for_all_that_shows_it(added):
    asked = []

    def counted(idata):
        """Return how often it was asked."""
        asked.append(idata)
        return xr.Dataset({"total": float(len(asked))})

    added(counted)
    posterior = Posterior.read("mean-field", synthetic(seed=1).idata)
    more_section([posterior])
    assert float(posterior.asked("counted")["total"]) == 1


def test_what_is_no_table_is_named_with_its_size(added):
    added(by_image)
    table = more_section([MEAN_FIELD]).tables[-1]
    assert table.rows == (("mean-field", "12.5"),)
    assert "each (obs_id: 500)" in table.notes[-1]
    assert "wiu_pyro.diagnostics.by_image" in table.notes[-1]


@pytest.mark.parametrize(
    ("question", "said"),
    [(refused, "Not for mean-field: Draws by hour are needed"), (in_need, "It needs threshold")],
)
def test_a_diagnostic_that_gives_no_figures_says_why(added, question, said):
    added(question)
    assert said in more_section([MEAN_FIELD]).tables[-1].rows[0][1]


def test_a_diagnostic_of_several_posteriors_gets_all_of_them(added):
    added(of_all)
    assert more_section([MEAN_FIELD, KFAC]).tables[-1].rows == (("mean-field", "2"), ("laplace-kfac", "1"))


def test_a_new_diagnostic_is_on_the_page(added, monkeypatch):
    unpictured(monkeypatch)
    added(by_layer)
    html = render([MEAN_FIELD, KFAC], {})
    assert 'href="#more"' in html
    assert "<caption>By layer</caption>" in html


def test_a_new_kind_of_plot_is_on_the_page(monkeypatch):
    monkeypatch.setattr(plots, "KINDS", {"toy-plot": lambda idata: plt.subplots(figsize=(2, 1))[1]})
    (group,) = figure_section([MEAN_FIELD]).figure_groups
    assert group.title == "Toy plot"
    assert group.figures[0].alt == "Toy plot"
    assert plt.get_fignums() == []
