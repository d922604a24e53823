"""The pruning plot: its lines, bands, margins and marks are the table's figures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from tests.pruned import SHARES, pruned
from wiu_pyro import plots
from wiu_pyro.errors import SchemaError

ACROSS = -np.log2(1 - np.array([0.0, *SHARES]))


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def panels(table, **options):
    return plots.pruning(table, **options).child_axes


def line(panel, label):
    return next(one for one in panel.lines if one.get_label() == label)


def test_lines_start_at_the_unpruned_error_and_are_the_errors_in_percent():
    panel, _ = panels(pruned())
    found = line(panel, "size")
    np.testing.assert_allclose(found.get_xdata(), ACROSS)
    np.testing.assert_allclose(found.get_ydata(), [2, 2, 2.2, 3, 32])


def test_band_is_the_interval_of_the_difference_around_the_unpruned_error():
    panel, _ = panels(pruned())
    heights = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(2 + 0.3 + 0.05)
    assert heights.min() == pytest.approx(2 - 0.05)


def test_safe_sparsities_are_marked_at_the_foot_and_chance_has_none():
    panel, layers = panels(pruned())
    marks = [one.get_xdata()[0] for one in panel.lines if one.get_gid() == "safe"]
    np.testing.assert_allclose(marks, -np.log2(1 - np.array([0.95, 0.5])))
    assert [one.get_xdata()[0] for one in layers.lines if one.get_gid() == "safe"] == pytest.approx([-np.log2(0.01)])


def test_margin_lies_above_the_unpruned_error():
    panel, _ = panels(pruned())
    margin = next(patch for patch in panel.patches if patch.get_gid() == "margin")
    assert margin.get_y() == pytest.approx(2)
    assert margin.get_height() == pytest.approx(0.1)


def test_axis_ends_where_the_curves_that_matter_do():
    panel, _ = panels(pruned())
    assert panel.get_ylim()[1] == pytest.approx(10)


def test_layers_have_a_line_each_by_the_best_criterion():
    _, panel = panels(pruned())
    np.testing.assert_allclose(line(panel, "'fc2'").get_ydata(), [2, 2, 2.1, 2.2, 2.6])


def test_seeds_give_their_mean_and_their_band():
    table = pruned(chains=5)
    table["seeds_error_difference_high"][..., -1] = 0.5
    panel, _ = panels(table)
    np.testing.assert_allclose(line(panel, "size").get_ydata(), [2, 2, 2.2, 3, 32])
    assert panel.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(52)


def test_few_networks_have_no_band():
    panel, _ = panels(pruned(chains=2))
    assert not panel.collections


def test_fine_tuning_is_a_dotted_line_of_its_own():
    panel, _ = panels(pruned(fine_tuned=True))
    assert line(panel, "size, fine-tuned").get_linestyle() == ":"


def test_predictive_shows_no_line_where_there_is_none():
    panel, _ = panels(pruned(fine_tuned=True, predictive=True), network="predictive")
    assert "size, fine-tuned" not in [one.get_label() for one in panel.lines]


def test_table_without_layers_has_one_panel():
    table = pruned()
    assert len(panels(table.drop_vars([name for name in table if name.startswith("layer_")]))) == 1


def test_unconverged_fit_is_marked():
    _, panel = panels(pruned().assign_attrs(converged="no"))
    assert "not converged" in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"network": "predictive"}, "Prune again with it: num_samples=20"), ({"ranking": "layer"}, "ranking 'layer'")],
)
def test_what_the_table_has_not_is_refused(options, said):
    with pytest.raises(SchemaError, match=said):
        plots.pruning(pruned(), **options)


def test_another_table_is_refused():
    with pytest.raises(SchemaError, match="what wiu_pyro.interventions.prune returned"):
        plots.pruning(xr.Dataset({"spearman": 0.5}))
