"""The picture of the network, by its boxes, their colours and the texts beside them."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgba

from tests.synthetic import hold, synthetic
from wiu_pyro import diagnostics, plots
from wiu_pyro.errors import DataError

IDATA = synthetic(factorised=False).idata


def table(count, *, chains=1, **columns):
    """A layer table as a deep network has it."""
    names = [f"features.{3 * place}" for place in range(count)]
    weights = np.geomspace(1_792, 2_359_808, count).astype(int)
    values = np.linspace(0.1, 0.9, count) + 0.01 * np.arange(chains)[:, None]
    data = {"num_weights": ("layer", weights), "contraction": (("chain", "layer"), values)}
    data |= {name: ("layer", np.asarray(column, dtype=float)) for name, column in columns.items()}
    return xr.Dataset(data, coords={"layer": names, "module_type": ("layer", ["Conv2d"] * count)})


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def bar_of(ax):
    (bar,) = ax.child_axes
    return bar


def test_there_is_one_box_a_layer_from_above_and_wider_with_the_logarithm_of_its_weights():
    ax, made = plots.network(IDATA), diagnostics.layer_uncertainty(IDATA)
    widths = np.array([box.get_width() for box in ax.patches])
    logs = np.log10(made["num_weights"].values)
    np.testing.assert_allclose(widths / widths.max(), logs / logs.max())
    middles = [box.get_x() + box.get_width() / 2 for box in ax.patches]
    np.testing.assert_allclose(middles, middles[0])
    heights = [ax.transData.transform((0, box.get_y()))[1] for box in ax.patches]
    assert heights == sorted(heights, reverse=True)


def test_boxes_have_the_colour_of_their_conditional_contraction_from_zero_up():
    ax = plots.network(IDATA)
    values = diagnostics.layer_uncertainty(IDATA)["conditional_contraction"].values
    for box, value in zip(ax.patches, values, strict=True):
        assert box.get_facecolor() == pytest.approx(to_rgba(plt.get_cmap("viridis")(value / values.max())))
    assert bar_of(ax).get_xlim() == pytest.approx((0, values.max()))
    assert bar_of(ax).get_xlabel() == "conditional contraction"


def test_a_factorised_posterior_is_coloured_by_its_contraction():
    assert bar_of(plots.network(synthetic().idata)).get_xlabel() == "contraction"


def test_beside_each_box_stand_name_figure_type_and_number_of_weights():
    row = diagnostics.layer_uncertainty(IDATA).sel(layer="fc2")
    shown = texts(plots.network(IDATA, "kl"))
    assert {"fc1", "fc2", "out"} <= set(shown)
    assert f"Linear · {int(row['num_weights']):,} weights" in shown
    assert f"{float(row['kl']):#.3g}".rstrip(".") in shown


def test_a_layer_table_alone_is_drawn_without_types():
    shown = texts(plots.network(diagnostics.layer_uncertainty(IDATA)))
    assert not any("Linear" in text for text in shown)


def test_of_several_networks_stands_the_mean_with_its_range():
    assert "0.910 (0.900 to 0.920)" in texts(plots.network(table(3, chains=3)))


def test_figures_that_span_decades_have_logarithmic_colours():
    made = table(4, kl_per_weight=[1e-4, 1e-3, 1e-2, 1])
    assert bar_of(plots.network(made, "kl_per_weight")).get_xscale() == "log"
    assert bar_of(plots.network(made)).get_xscale() == "linear"


def test_a_layer_at_its_point_estimate_is_grey_and_called_so():
    ax = plots.network(hold(IDATA, "fc2"))
    assert "point estimate" in texts(ax)
    assert ax.patches[1].get_facecolor() == pytest.approx(to_rgba("#f1f1f1"))
    assert ax.patches[1].get_linestyle() == "--"


@pytest.mark.parametrize("count", [3, 16, 40])
def test_no_text_lies_over_another_however_many_layers(count):
    ax = plots.network(table(count, chains=2))
    ax.figure.canvas.draw()
    frame = ax.figure.bbox
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() and text.get_rotation() == 0]
    assert len(boxes) >= 3 * count
    for one, other in itertools.combinations(boxes, 2):
        overlap = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert overlap <= 2.5 or min(one.x1, other.x1) <= max(one.x0, other.x0)  # 2.5 px of 9: leading, not letters
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(DataError, match=r"The layer table has no column 'kl_per_wait'\. Did you mean 'kl_per_weight'"):
        plots.network(IDATA, "kl_per_wait")
