"""Layers through the training: what the curves and the heat map show is what the diagnostics computed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.recorded import recorded
from tests.synthetic import synthetic
from wiu_pyro import diagnostics, plots
from wiu_pyro.errors import DataError, SchemaError

TIMES = {"fc1": 4.0, "fc2": 12.0, "out": 100.0}
PANELS = ("mean_to_prior", "sd_to_prior", "kl_per_weight")


def lines(panel, label):
    return [line for line in panel.get_lines() if line.get_label() == label]


def dots(panel):
    return [float(line.get_xdata()[0]) for line in panel.get_lines() if line.get_marker() == "o"]


def test_each_panel_has_the_figures_of_each_layer_and_dots_where_they_settled():
    idata = recorded(TIMES)
    table, settled = diagnostics.evolution(idata), diagnostics.convergence(idata)
    panels = plots.evolution(idata).child_axes
    assert len(panels) == 3
    for panel, name, quantity in zip(panels, PANELS, ("mean", "sd", "kl"), strict=True):
        for layer in TIMES:
            (line,) = lines(panel, layer)
            np.testing.assert_array_equal(line.get_ydata(), table[name].sel(layer=layer))
        epochs = settled["settled_epoch"].sel(quantity=quantity).values
        assert dots(panel) == epochs[np.isfinite(epochs)].tolist()


def test_the_epochs_of_a_falling_rate_are_grey():
    (panel,) = plots.evolution(recorded(TIMES), "kl_per_weight").child_axes
    (patch,) = panel.patches
    assert (patch.get_x(), patch.get_x() + patch.get_width()) == (70, 100)
    assert not plots.evolution(recorded(TIMES, full=100)).child_axes[0].patches


def test_several_networks_have_a_line_each_and_five_seeds_their_mean():
    assert len(lines(plots.evolution(recorded(TIMES, chains=2, noise=0.01)).child_axes[0], "fc1")) == 2
    idata = recorded(TIMES, chains=5, noise=0.01)
    panel = plots.evolution(idata).child_axes[0]
    (line,) = lines(panel, "fc1")
    table = diagnostics.evolution(idata)
    np.testing.assert_array_equal(line.get_ydata(), table["seeds_mean_to_prior"].sel(layer="fc1"))
    assert len(panel.collections) == 3


def test_a_table_of_evolution_is_drawn_without_dots_or_with_those_of_the_other_table():
    idata = recorded(TIMES)
    table, settled = diagnostics.evolution(idata), diagnostics.convergence(idata)
    assert dots(plots.evolution(table).child_axes[0]) == []
    assert dots(plots.evolution(table, settled=settled).child_axes[0]) == dots(plots.evolution(idata).child_axes[0])


def test_an_unknown_figure_is_refused():
    with pytest.raises(DataError, match="has no figure 'kl_per_wieght'.*kl_per_weight"):
        plots.evolution(recorded(TIMES), "kl_per_wieght")


def test_the_heat_map_has_the_worst_distance_of_each_layer_up_to_the_end_of_the_full_rate():
    table = diagnostics.convergence(recorded(TIMES, noise=0.005))
    ax = plots.convergence(table)
    (mesh,) = (mesh for mesh in ax.collections if mesh.get_array() is not None)
    expected = table["distance"].max("quantity").sel(epoch=table["epoch"] <= 70).transpose("layer", "epoch")
    np.testing.assert_allclose(mesh.get_array(), np.clip(expected, 1 / 16, 16))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(TIMES)


def test_the_marks_stand_where_the_layers_had_converged():
    table = diagnostics.convergence(recorded(TIMES, noise=0.005))
    ax = plots.convergence(table)
    marks = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linewidth() == 2]
    assert marks == table["converged_epoch"].values[:2].tolist()
    assert sum(text.get_text().strip() == "not converged" for text in ax.texts) == 1


def test_a_dotted_line_stands_where_early_stopping_would_have_stopped():
    table = diagnostics.convergence(recorded(TIMES)).assign(early_stop_epoch=31.0)
    ax = plots.convergence(table)
    (line,) = (line for line in ax.get_lines() if line.get_linestyle() == ":")
    assert line.get_xdata()[0] == 31


def test_a_training_too_short_to_judge_is_drawn_as_not_assessed():
    ax = plots.convergence(recorded(TIMES, epochs=8, full=6))
    assert sum(text.get_text().strip() == "not assessed" for text in ax.texts) == 3


@pytest.mark.parametrize("name", ["evolution", "convergence"])
def test_both_draw_into_given_axes_and_say_when_the_fit_had_not_converged(name):
    _, ax = plt.subplots()
    assert getattr(plots, name)(synthetic(converged="no").idata, ax=ax) is ax
    assert any(text.get_text() == "not converged" for text in ax.texts)


@pytest.mark.parametrize("name", ["evolution", "convergence"])
def test_a_file_without_records_is_refused(name):
    from wiu_pyro import schema
    from wiu_pyro.export.container import build

    idata = recorded(TIMES)
    groups = {group: schema.dataset(idata, group) for group in schema.groups(idata) if group != "training"}
    with pytest.raises(SchemaError, match="kept nothing"):
        getattr(plots, name)(build(groups))
