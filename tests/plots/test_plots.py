"""Figures, tested by what the artists show."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.synthetic import CONV_LAYERS, hold, synthetic
from wiu_pyro import diagnostics, plots, schema
from wiu_pyro.errors import DataError, SchemaError

MADE = synthetic(factorised=False)
IDATA = MADE.idata


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(Text)]


def figure_of(drawing):
    return drawing if isinstance(drawing, Figure) else drawing.figure


@pytest.mark.parametrize("kind", sorted(plots.KINDS))
@pytest.mark.parametrize(("converged", "noted"), [("yes", False), ("no", True)])
def test_every_kind_draws_a_posterior_and_notes_when_its_fit_had_not_converged(kind, converged, noted):
    drawing = plots.KINDS[kind](synthetic(converged=converged, num_chains=2).idata)
    assert isinstance(drawing, Figure | Axes)
    assert ("not converged" in texts(figure_of(drawing))) == noted
    figure_of(drawing).canvas.draw()


@pytest.mark.parametrize("metric", ["sd_to_prior", "contraction", "signal_to_noise"])
def test_ridges_are_the_densities_scaled_to_their_peak(metric):
    table = diagnostics.weight_distribution(IDATA, metric)
    ax = plots.layer_uncertainty(IDATA, metric)
    assert len(ax.patches) == 3
    for place, (patch, layer) in enumerate(zip(ax.patches, ["fc1", "fc2", "out"], strict=True)):
        heights, edges, base = patch.get_data()
        assert base == 2 - place
        density = table["density"].sel(layer=layer).values
        np.testing.assert_allclose((heights - base) / (heights - base).max(), density / density.max(), atol=1e-12)
        np.testing.assert_array_equal(edges[:-1], table["left"])


def test_dots_of_the_ridges_stand_at_the_medians():
    table = diagnostics.weight_distribution(IDATA, "contraction")
    dots = [line for line in plots.layer_uncertainty(table).lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == table["q50"].values.tolist()


def test_a_figure_of_all_metrics_has_three_panels_and_the_same_colour_for_a_layer_in_each():
    figure = plots.layer_uncertainty(IDATA)
    seen = [[to_hex(patch.get_facecolor()) for patch in panel.patches] for panel in figure.axes]
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == 3
    assert "5 % of weights at the prior" in texts(figure)


def dead_weights():
    """A posterior of which a tenth of fc1's weights have means of 1e-40 sd."""
    made = synthetic(factorised=False)
    moments = schema.dataset(made.idata, "moments_fc1")
    mean = moments["mean"].values.reshape(-1)
    mean[:104] = 1e-40 * moments["sd"].values.reshape(-1)[:104]
    return made.idata


def test_signal_to_noise_of_dead_weights_is_counted_and_not_drawn():
    idata = dead_weights()
    table = diagnostics.weight_distribution(idata, "signal_to_noise")
    share = float(table["below_floor"].sel(layer="fc1"))
    assert 0.1 <= share < 0.2
    ax = plots.layer_uncertainty(table)
    assert ax.get_xlim()[0] == pytest.approx(1e-3)
    assert f"{100 * share:.0f} % of weights below 0.001" in texts(ax)
    assert plots.weight_heatmap(idata, "fc1", "signal_to_noise").images[0].norm.vmin >= 1e-3


def test_a_median_beyond_the_axis_is_an_arrow_at_its_end():
    table = diagnostics.weight_distribution(IDATA, "signal_to_noise")
    table["q50"][0] = 1e-30
    marks = [line for line in plots.layer_uncertainty(table).lines if line.get_marker() in "<o"]
    assert [mark.get_marker() for mark in marks] == ["<", "o", "o"]
    assert float(marks[0].get_xdata()[0]) == float(table["left"][0])


def test_heat_map_shows_the_matrix_and_says_where_cells_are_means():
    ax = plots.weight_heatmap(IDATA, "fc2", "mean")
    np.testing.assert_allclose(ax.images[0].get_array(), MADE.truth["fc2"].mean[0, :192].reshape(12, 16), rtol=1e-6)
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert "weight of 12 × 16" in texts(ax)
    binned = plots.weight_heatmap(diagnostics.weight_map(IDATA, "fc1", max_size=10))
    assert "weight of 16 × 64; each cell is the mean over 2 × 7 weights" in texts(binned)


def test_heat_map_of_a_convolution_names_kernel_positions():
    ax = plots.weight_heatmap(synthetic(layers=CONV_LAYERS).idata, quantity="signal_to_noise")
    assert ax.get_xlabel() == "input channel and kernel position"
    assert ax.images[0].get_array().shape == (6, 9)


def test_input_map_shows_dead_pixels_at_the_prior():
    panel, images = plots.input_map(IDATA).child_axes
    shown = np.asarray(panel.images[0].get_array())
    np.testing.assert_allclose(shown.ravel()[[0, 32, 39]], 1, rtol=1e-5)
    np.testing.assert_allclose(shown, diagnostics.input_map(IDATA)["sd_to_prior"][0])
    x = schema.dataset(IDATA, "constant_data")["x"].values
    np.testing.assert_allclose(images.images[0].get_array(), x[:, 0].std(axis=0), rtol=1e-5)


def test_loss_curve_shows_each_epoch_and_shades_the_tail():
    ax = plots.loss(IDATA)
    loss = schema.dataset(IDATA, "training")["loss"].values[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), loss)
    assert ax.lines[0].get_xdata().tolist() == list(range(1, 21))
    before, tail = ax.patches
    assert (before.get_x(), before.get_width()) == (16.5, 2)
    assert (tail.get_x(), tail.get_width()) == (18.5, 2)
    means = [float(line.get_ydata()[0]) for line in ax.lines[1:]]
    assert means == pytest.approx([loss[16:18].mean(), loss[18:].mean()], rel=1e-6)


def test_loss_curve_says_what_the_fit_recorded_and_nothing_of_its_own():
    said = schema.attrs(IDATA)["convergence_detail"]
    shown = [text for text in texts(plots.loss(IDATA)) if "%" in text]
    assert [" ".join(text.split()) for text in shown] == [" ".join(said.split())]


def test_bars_of_the_reliability_diagram_are_accuracies_and_counts_of_filled_bins():
    table = diagnostics.predictive(IDATA)
    ax = plots.reliability(IDATA)
    counts = next(other for other in ax.child_axes if other.get_ylabel() == "images")
    filled = table["bin_count"].values > 0
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], table["bin_accuracy"].values[filled])
    np.testing.assert_array_equal([bar.get_height() for bar in counts.patches], table["bin_count"].values[filled])
    np.testing.assert_allclose([bar.get_x() for bar in counts.patches], table["bin_left"].values[filled])
    largest = table["bin_count"].values.max()
    assert largest < counts.get_ylim()[1] < 2 * largest
    assert counts.get_xlabel() == "confidence (largest class probability)"


def test_risk_coverage_shows_posterior_and_point_estimate():
    table = diagnostics.predictive(IDATA)
    lines = {line.get_label(): line for line in plots.risk_coverage(table).lines}
    np.testing.assert_array_equal(lines["laplace-kfac"].get_ydata(), table["risk"])
    np.testing.assert_array_equal(lines["point estimate"].get_ydata(), table["point_risk"])


def test_declined_images_are_the_most_uncertain_with_labels_and_interval():
    table = diagnostics.predictive(IDATA)
    panels = plots.declined_images(IDATA, num_images=4).child_axes
    pixels = schema.dataset(IDATA, "constant_data")["x"].values
    for rank in range(4):
        row = table.isel(rank=rank)
        np.testing.assert_array_equal(panels[rank].images[0].get_array(), pixels[int(row["declined"]), 0])
        label, predicted = int(row["declined_label"]), int(row["declined_predicted"])
        assert panels[rank].get_title() == (str(label) if label == predicted else f"{predicted}, is {label}")
        assert (
            f"[{float(row['declined_lower']):.2f}, {float(row['declined_upper']):.2f}]"
            in panels[rank].texts[0].get_text()
        )
    assert all(not panel.images for panel in panels[4:])


def test_colour_images_keep_their_colours_and_classes_their_names():
    made = synthetic(image_shape=(3, 4, 4), num_classes=2)
    data = schema.dataset(made.idata, "observed_data")
    data.attrs["class_names"] = ["cat", "dog"]
    panel = plots.declined_images(made.idata, num_images=1).child_axes[0]
    pixels = schema.dataset(made.idata, "constant_data")["x"].values
    first = int(diagnostics.predictive(made.idata)["declined"][0])
    np.testing.assert_allclose(panel.images[0].get_array(), np.moveaxis(pixels[first], 0, -1))
    assert set(panel.get_title().split(", is ")) <= {"cat", "dog"}


def test_comparison_shows_each_posterior_by_layer_and_unconverged_ones_hollow():
    idatas = {"vi": synthetic(converged="no").idata, "kfac": IDATA}
    table = diagnostics.compare(idatas)
    figure = plots.compare_layers(idatas)
    shown = {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}
    assert set(shown) == {"vi (not converged)", "kfac"}
    np.testing.assert_array_equal(
        shown["kfac"].get_xdata(), table["conditional_contraction"].sel(posterior="kfac").values
    )
    assert shown["vi (not converged)"].get_markerfacecolor() == "white"
    assert shown["kfac"].get_markerfacecolor() != "white"
    assert "none where the posterior factorises" in texts(figure.axes[1])


def test_comparison_leaves_out_panels_that_no_posterior_can_fill():
    figure = plots.compare_layers([synthetic().idata, synthetic(seed=1).idata])
    assert [ax.get_xlabel() for ax in figure.axes] == ["conditional contraction", "KL from the prior, nats a weight"]


def test_every_plot_draws_into_the_axes_it_is_given():
    import matplotlib.pyplot as plt

    for name, draw in plots.KINDS.items():
        _, ax = plt.subplots()
        one = {"layer-uncertainty": "metric", "between-layers": "metric", "within-layer": "quantity"}
        options = {one[name]: "log_snr" if name == "within-layer" else "contraction"} if name in one else {}
        assert draw(IDATA, ax=ax, **options) is ax
    assert len(plt.get_fignums()) == len(plots.KINDS)


def test_what_cannot_be_drawn_is_refused():
    regression = synthetic(likelihood="normal").idata
    with pytest.raises(SchemaError, match="A classifier's predictions are needed for a reliability diagram"):
        plots.reliability(regression)
    with pytest.raises(SchemaError, match="A classifier's predictions are needed for a risk-coverage curve"):
        plots.risk_coverage(regression)
    with pytest.raises(SchemaError, match="Images .* are needed, but the file holds none"):
        plots.declined_images(synthetic(images=False).idata)
    with pytest.raises(DataError, match="Unknown metric 'kl_per_wait'. Did you mean 'kl_per_weight'"):
        plots.compare_layers([IDATA], "kl_per_wait")
    ax = plots.loss(IDATA)
    for draw, source in ((plots.layer_uncertainty, IDATA), (plots.compare_layers, [IDATA])):
        with pytest.raises(DataError, match="One pair of axes holds one metric"):
            draw(source, ax=ax)


def test_eight_layers_have_eight_colours():
    from wiu_pyro.plots.style import colours

    names = [f"conv{i}" for i in range(8)]
    assert len({to_hex(colour) for colour in colours(names).values()}) == 8


@pytest.mark.parametrize("kind", sorted(plots.KINDS))
@pytest.mark.parametrize(("layer", "every"), [("fc2", 1), ("fc1", 2)])
def test_every_kind_draws_a_posterior_of_which_part_is_a_point_estimate(kind, layer, every):
    drawing = plots.KINDS[kind](hold(synthetic(num_chains=2).idata, layer, every=every))
    figure_of(drawing).canvas.draw()


def test_a_layer_at_its_point_estimate_has_no_ridge_and_is_called_so():
    ax = plots.layer_uncertainty(hold(IDATA, "fc2"), "contraction")
    assert len(ax.patches) == 2
    assert "point estimate" in texts(ax)
    assert len([line for line in ax.lines if line.get_marker() == "o"]) == 2


def test_a_ridge_of_some_of_a_layers_weights_says_how_many():
    assert "50 % of weights have a posterior" in texts(
        plots.layer_uncertainty(hold(IDATA, "fc2", every=2), "sd_to_prior")
    )


def test_heat_map_leaves_held_weights_blank_and_says_so():
    ax = plots.weight_heatmap(hold(IDATA, "fc2", every=2), "fc2")
    shown = np.ma.getmaskarray(ax.images[0].get_array())
    assert shown.mean() == pytest.approx(0.5)
    assert any("blank: held at the point estimate" in text for text in texts(ax))


def test_comparison_has_no_mark_for_a_layer_at_its_point_estimate():
    ax = plots.compare_layers({"all": IDATA, "last": hold(IDATA, "fc1")}, "conditional_contraction")
    marks = {line.get_label(): line.get_xdata() for line in ax.lines if line.get_label() in ("all", "last")}
    assert np.isnan(marks["last"]).tolist() == [True, False, False]
    assert "no mark: at the point estimate" in texts(ax)
