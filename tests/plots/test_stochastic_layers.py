"""Figures of stochastic layers, by the data their artists hold."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.stochastic_tables import LAYERS, MEMBERS, stochastic_table
from wiu_pyro import plots
from wiu_pyro.errors import DataError, SchemaError


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def marks(ax, label: str) -> np.ndarray:
    return np.concatenate([line.get_xdata() for line in ax.get_lines() if line.get_label() == label])


def test_marks_are_full_where_the_interval_leaves_the_whole_out():
    ax = plots.stochastic_layers(stochastic_table(difference=0.03), "nll")
    np.testing.assert_allclose(marks(ax, "restricted, apart"), [0.03] * 7)
    np.testing.assert_allclose(marks(ax, "restricted"), [0.0])
    np.testing.assert_allclose(marks(ax, "refitted, apart"), [0.08] * 7)
    assert [text.get_text() for text in ax.get_yticklabels()][1:-1] == list(MEMBERS)[1:-1]
    within = plots.stochastic_layers(stochastic_table(difference=0.005, shift=0.0), "nll")
    assert marks(within, "restricted, apart").size == 0


def test_the_figure_has_shares_and_scores_and_draws_what_is_one_once():
    figure = plots.stochastic_layers(stochastic_table(shift=0.0, shapley=(0.5, 0.3, 0.2)))
    labels = [ax.get_xlabel().split("\n")[0] for ax in figure.axes]
    assert labels == [
        "share of the functional variance",
        "NLL − the whole's, nats an image",
        "Brier score − the whole's",
        "AUROC of mutual information",
    ]
    shares = np.sort(np.concatenate([marks(figure.axes[0], name) for name in ("restricted, apart", "restricted")]))
    np.testing.assert_allclose(shares, [0, 0.2, 0.3, 0.5, 0.5, 0.7, 0.8, 1])
    assert marks(figure.axes[0], "restricted").size == 1
    assert not any("refitted" in str(line.get_label()) for ax in figure.axes for line in ax.get_lines())
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "restricted and refitted are one" in said
    alone = plots.stochastic_layers(stochastic_table(refitted=False))
    assert "restricted alone" in [text.get_text() for ax in alone.axes for text in ax.texts]


def test_effects_are_discs_between_their_outer_effects_and_bars_where_these_part():
    table = stochastic_table(shapley=(0.5, 0.3, 0.2), together=0.1)
    ax = plots.layer_effects(table, "probability")
    np.testing.assert_allclose(marks(ax, "_shapley"), [0.5, 0.3, 0.2])
    np.testing.assert_allclose(marks(ax, "_first_order"), [0.45, 0.25, 0.15])
    np.testing.assert_allclose(marks(ax, "_total"), [0.55, 0.35, 0.25])
    np.testing.assert_allclose(marks(ax, "_interval"), np.ravel([[s - 0.02, s + 0.02] for s in (0.5, 0.3, 0.2)]))
    assert [text.get_text() for text in ax.get_yticklabels()] == list(LAYERS)
    one = plots.layer_effects(stochastic_table(shapley=(0.5, 0.3, 0.2)))
    assert len(one.axes) == 2
    assert not any(line.get_label() == "_bar" for ax in one.axes for line in ax.get_lines())


def test_a_fit_that_had_not_converged_is_marked():
    for draw in (plots.stochastic_layers, plots.layer_effects):
        figure = draw(stochastic_table(converged="no"))
        assert "not converged" in [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize(
    ("draw", "options", "message"),
    [
        (plots.stochastic_layers, {"metric": "loss"}, "Unknown metric 'loss'"),
        (plots.layer_effects, {"response": "loss"}, "Unknown response 'loss'"),
    ],
)
def test_what_is_unknown_is_refused(draw, options, message):
    with pytest.raises(DataError, match=message):
        draw(stochastic_table(), **options)
    with pytest.raises(DataError, match="One pair of axes holds one"):
        draw(stochastic_table(), ax=plt.subplots()[1])
    with pytest.raises(SchemaError):
        draw(stochastic_table().drop_vars(["variance_share", "effect_share"]))
