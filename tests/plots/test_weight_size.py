"""Figures of what weights' sizes and the prior have to do with their sds, by what the artists show."""

import numpy as np
import pytest
from matplotlib.text import Text

from tests.planted import PlantedLayer, planted
from wiu_pyro import diagnostics, plots


def layers(names, chains=1, shape=(24, 30)):
    rng, found = np.random.default_rng(0), {}
    for name in names:
        mean = rng.normal(size=(chains, *shape))
        sd = np.exp(0.2 * rng.normal(size=mean.shape) - 1) * np.abs(mean) ** -0.2
        found[name] = PlantedLayer(sd=sd, mean=mean, bias_sd=np.ones((chains, shape[0])))
    found[names[0]].mean[:, 4], found[names[0]].sd[:, 4] = 0.0, 1.0
    return found


TWO = planted(layers(["fc1", "fc2"]))


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(Text)]


def by_label(panel):
    return {artist.get_label(): artist for artist in [*panel.lines, *panel.collections]}


def test_curves_are_the_medians_with_shade_band_and_the_priors_line():
    table = diagnostics.magnitude(TWO)
    panels = plots.magnitude(table).child_axes
    assert len(panels) == 2
    for panel, layer in zip(panels, ["fc1", "fc2"], strict=True):
        row, shown = table.sel(layer=layer), by_label(panel)
        np.testing.assert_array_equal(shown["median"].get_xdata(), row["size"])
        np.testing.assert_array_equal(shown["median"].get_ydata(), row["sd_to_prior_q50"])
        assert shown["prior"].get_ydata()[0] == 1
        for label, ends in {
            "weights": ("sd_to_prior_q10", "sd_to_prior_q90"),
            "null": ("null_low", "null_high"),
        }.items():
            heights = shown[label].get_paths()[0].vertices[:, 1]
            assert set(np.round(row[ends[0]].values, 9)) <= set(np.round(heights, 9))
            assert heights.max() == pytest.approx(float(row[ends[1]].max()))


def test_all_layers_share_both_axes_which_are_logarithmic_and_hold_the_prior():
    panels = plots.magnitude(TWO).child_axes
    assert len({panel.get_xlim() for panel in panels}) == len({panel.get_ylim() for panel in panels}) == 1
    assert panels[0].get_xscale() == panels[0].get_yscale() == "log"
    low, high = panels[0].get_ylim()
    assert low < 1 < high


def test_above_each_panel_stands_the_correlation_with_its_interval():
    row = diagnostics.magnitude(TWO).sel(layer="fc2")
    value, low, high = (float(row[f"spearman{end}"]) for end in ("", "_low", "_high"))
    assert f"ρ {value:.2f} ({low:.2f} to {high:.2f})".replace("-", "−") in texts(plots.magnitude(TWO))


def test_weights_at_the_floor_of_the_size_are_counted():
    table = diagnostics.magnitude(TWO)
    share = float(table.sel(layer="fc1")["bin_count"][0]) / 720
    made = plots.magnitude(TWO).child_axes
    assert share == pytest.approx(30 / 720, abs=0.02)
    assert f"{100 * share:.0f} % ≤ 0.001" in texts(made[0])
    assert not any("≤" in text for text in texts(made[1]))


def test_twenty_layers_stand_in_rows_of_five():
    names = [f"conv{place}" for place in range(20)]
    ax = plots.magnitude(diagnostics.magnitude(planted(layers(names)), num_bootstrap=2))
    assert [panel.get_title(loc="left") for panel in ax.child_axes] == names
    left = {round(panel.get_position().x0, 3) for panel in ax.child_axes}
    assert len(left) == 5
    width, height = ax.figure.get_size_inches()
    assert width < 14
    assert height < 14


def test_networks_are_lines_of_their_own_and_seeds_give_the_interval():
    idata = planted(layers(["fc1", "fc2"], chains=5), seed=[0, 1, 2, 3, 4])
    table = diagnostics.magnitude(idata, num_bootstrap=2)
    panel = plots.magnitude(table).child_axes[1]
    assert sum(line.get_label() == "median" for line in panel.lines) == 5
    value = float(table["seeds_spearman"].sel(layer="fc2"))
    assert any(text.startswith(f"ρ {value:.2f} (".replace("-", "−")) for text in texts(panel))
    table = diagnostics.identification(idata)
    shares = plots.identification(table).child_axes[0]
    large = [line for line in shares.lines if line.get_markersize() == 6 and line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in large] == table["seeds_unidentified"].values.tolist()


def test_dots_are_the_shares_and_bars_their_intervals():
    table = diagnostics.identification(TWO)
    panel = plots.identification(table).child_axes[0]
    full = [line for line in panel.lines if line.get_marker() == "o" and line.get_markerfacecolor() != "white"]
    assert [float(line.get_xdata()[0]) for line in full] == table["unidentified"].values.tolist()
    hollow = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert [float(line.get_xdata()[0]) for line in hollow] == table["at_prior"].values.tolist()
    bars = [line for line in panel.lines if line.get_linewidth() == 2.2]
    ends = np.stack([table["unidentified_low"], table["unidentified_high"]], axis=1)
    np.testing.assert_array_equal([bar.get_xdata() for bar in bars], ends)


def test_strips_are_the_units_in_order_of_their_share():
    table = diagnostics.identification(TWO)
    panels = plots.identification(table).child_axes
    for panel, axis in zip(panels[1:3], ("output", "input"), strict=True):
        for image, layer in zip(panel.images, ["fc1", "fc2"], strict=True):
            expected = np.sort(table[f"{axis}_unidentified"].sel(layer=layer))
            np.testing.assert_array_equal(image.get_array()[0], expected)
    assert float(panels[1].images[0].get_array()[0, -1]) == 1  # the dead output


def test_a_layer_without_uncertainty_or_units_is_drawn_empty_and_says_why():
    made = layers(["fc1", "fc2"]) | {"norm": PlantedLayer(sd=np.zeros((1, 50)))}
    idata = planted(made)
    assert "no uncertainty" in texts(plots.magnitude(idata))
    assert texts(plots.identification(idata)).count("no outputs to tell apart") == 1
