"""Figures of differences between and within layers, tested by what the artists show."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from tests.planted import PlantedLayer, planted
from tests.synthetic import LayerSpec, synthetic
from wiu_pyro import diagnostics, plots
from wiu_pyro.errors import DataError
from wiu_pyro.plots.style import COLOURS, GREY

WIDE = (LayerSpec("fc1", (24, 30), 0.3), LayerSpec("fc2", (20, 24), 0.5), LayerSpec("out", (10, 20), 0.8))


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(Text)]


def marks(ax, marker):
    """Return (x, y, face colour) of the single marks of one kind."""
    found = [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor()) for line in found]


def bars_between(ax):
    """Return the ends of the interval bars, from the top down."""
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    return [tuple(map(float, line.get_xdata())) for line in lines if line.get_ydata()[0] == line.get_ydata()[1]
            and line.get_color() in (COLOURS[0], GREY) and tuple(line.get_xdata()) != (0, 1)]  # fmt: skip


def seeds(levels):
    rng = np.random.default_rng(0)
    return planted(
        {
            name: PlantedLayer(np.exp(level + 0.02 * rng.normal(size=(5, 1, 1)) + 0.1 * rng.normal(size=(5, 6, 8))))
            for name, level in levels.items()
        }
    )


def test_forest_shows_each_difference_with_its_interval_over_seeds():
    table = diagnostics.between_layers(seeds({"a": -1.0, "b": -1.0, "c": -0.6}))
    ax = plots.between_layers(table, "contraction")
    row = table.sel(metric="contraction")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a − b", "a − c", "b − c"]
    assert [mark[:2] for mark in marks(ax, "o")] == list(zip(row["difference"].values, [2, 1, 0], strict=True))
    assert bars_between(ax) == list(zip(row["seeds_low"].values, row["seeds_high"].values, strict=True))
    assert "95 % intervals over 5 seeds,\nsimultaneous over the pairs" in texts(ax)


def test_differences_whose_interval_holds_zero_are_grey_and_hollow():
    table = diagnostics.between_layers(seeds({"a": -1.0, "b": -1.0, "c": -0.6}))
    row = table.sel(metric="contraction")
    apart = ((row["seeds_low"] > 0) | (row["seeds_high"] < 0)).values
    faces = [face for _, _, face in marks(plots.between_layers(table, "contraction"), "o")]
    assert 0 < apart.sum() < 3
    assert [face == "white" for face in faces] == (~apart).tolist()


def test_intervals_within_one_network_are_called_so_and_differences_without_are_crosses():
    idata = synthetic(layers=WIDE).idata
    row = diagnostics.between_layers(idata).sel(metric="contraction")
    ax = plots.between_layers(idata, "contraction")
    assert bars_between(ax) == [(float(row["within_low"][0]), float(row["within_high"][0]))]
    assert [mark[0] for mark in marks(ax, "x")] == row["difference"].values[1:].tolist()
    assert "95 % intervals within this one network:\nother units, not another training" in texts(ax)
    assert "no intervals within this one network:\ntoo few units" in texts(plots.between_layers(synthetic().idata))


def test_effect_sizes_stand_beside_the_differences():
    table = diagnostics.between_layers(synthetic(num_chains=5).idata)
    figure = plots.between_layers(table)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "difference in contraction",
        "difference in median |mean| / sd",
        "difference in KL a weight, nats",
        "Cliff's delta, weight by weight",
    ]
    shown = {line.get_label(): line.get_xdata() for line in figure.axes[-1].lines}
    np.testing.assert_allclose(shown["|mean| / sd"], table["cliffs_delta"].sel(quantity="log_snr").mean("chain"))


def test_of_many_pairs_those_furthest_apart_are_drawn_and_it_is_said():
    table = diagnostics.between_layers(seeds({"a": -1.0, "b": -1.01, "c": -0.5, "d": -1.02}))
    ax = plots.between_layers(table, "contraction", max_pairs=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a − c", "b − c", "c − d"]
    assert any(text.endswith("; 3 of 6 pairs") for text in texts(ax))


def widths(ax):
    return [bar.get_width() for bar in ax.patches]


def test_bars_are_the_shares_of_each_layer_and_end_at_one():
    idata = synthetic(layers=WIDE, num_chains=2).idata
    table = diagnostics.within_layer(idata)
    share = table["share"].sel(quantity="log_snr").mean("chain")
    ax = plots.within_layer(table, "log_snr")
    drawn = np.reshape(widths(ax), (3, 3))  # outputs, inputs, rest; dense layers have no kernel positions
    np.testing.assert_allclose(drawn, share.sel(part=["output", "input", "rest"]).values.T)
    assert ax.patches[-1].get_x() + ax.patches[-1].get_width() == pytest.approx(1)
    assert [to_hex(ax.patches[i].get_facecolor()) for i in (0, 3)] == [COLOURS[0].lower(), COLOURS[1].lower()]


def test_layers_without_shares_are_named_in_words():
    rng = np.random.default_rng(1)
    layers = {"flat": PlantedLayer(np.full((1, 4, 5), 0.4)), "fc": PlantedLayer(np.exp(rng.normal(size=(1, 4, 5)) - 2))}
    ax = plots.within_layer(planted(layers), "log_sd_to_prior")
    assert texts(ax).count("nothing to split") == 1


def test_spectra_stand_beside_the_shares_where_there_are_kronecker_factors():
    table = diagnostics.within_layer(synthetic(layers=WIDE).idata)
    ranks = np.linspace(0, 1, 101)
    spectrum = np.stack([np.geomspace(10, 1e-3, 101), np.geomspace(5, 0.1, 101)])
    table = table.assign_coords(side=["input", "output"], rank=ranks, carrier=["input", "output", "both together"])
    table["spectrum"] = (("layer", "side", "rank"), np.stack([spectrum, 2 * spectrum, np.full((2, 101), np.nan)]))
    table["carried"] = (("layer", "carrier"), [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [np.nan] * 3])
    figure = plots.within_layer(table)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "spread of log sd",
        "spread of log |mean| / sd",
        "spread between eigendirections",
        "directions of one side, by rank",
    ]
    lines = {line.get_label(): line for line in figure.axes[-1].lines}
    np.testing.assert_allclose(lines["fc2 output"].get_ydata(), 2 * spectrum[1])
    assert lines["fc2 output"].get_linestyle() == "--"
    assert widths(figure.axes[2])[:2] == [0.2, 0.8]  # outputs of fc1 and fc2 first, as in the other panels


def test_what_cannot_be_drawn_is_refused():
    idata = synthetic().idata
    ax = plots.loss(idata)
    with pytest.raises(DataError, match="Unknown metric 'contractions'. Did you mean 'contraction'"):
        plots.between_layers(idata, "contractions")
    with pytest.raises(DataError, match="got max_pairs=0"):
        plots.between_layers(idata, max_pairs=0)
    with pytest.raises(DataError, match="One pair of axes holds one metric"):
        plots.between_layers(idata, ax=ax)
    with pytest.raises(DataError, match="Unknown quantity 'log_snrs'. Did you mean 'log_snr'"):
        plots.within_layer(idata, "log_snrs")
    with pytest.raises(DataError, match="One pair of axes holds one quantity"):
        plots.within_layer(idata, ax=ax)
