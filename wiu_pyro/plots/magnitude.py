"""The sd of a layer's weights along their size, layer by layer, beside the prior and beside chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from wiu_pyro import diagnostics
from wiu_pyro.diagnostics.weight_distribution import FLOOR
from wiu_pyro.plots.style import GREY, as_table, chains, colours, grid_of_axes, new_axes, note_convergence, tidy, title

__all__ = ["magnitude"]

MOST_COLUMNS = 5
CELL = (2.1, 1.75)  # inches
GAP = (0.42, 0.14)  # shares of a cell: between rows, between columns
MARGINS = (0.75, 0.15, 0.55, 0.95)
LEGEND = (
    "line: median, shade: 10 to 90 % of the weights; dashed: prior;\n"
    "grey: where the median stays if sds and sizes are unrelated"
)
PADDING = 1.15  # of the logarithmic axes, a factor


def magnitude(source: Any, *, ax: Axes | None = None) -> Axes:
    r"""Draw sd / prior sd over \|mean\| / prior sd for each layer, both logarithmic, the same for all layers.

    The line is the median of the weights in each bin of size, the shade from 10 to 90 % of them. Dashed is the prior's
    sd. The grey band is where the median would stay if the sds had nothing to do with the size. Of several chains each
    has its line, the first its shade and band. Above each panel stands Spearman's correlation with its interval.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.magnitude` returned.
    ax : Axes, optional
        Where to draw; it is divided into one panel a layer.

    Returns
    -------
    Axes
        Its `child_axes` are the panels, in the order of the layers.
    """
    table = as_table(source, diagnostics.magnitude)
    layers = [str(name) for name in table["layer"].values]
    columns = min(len(layers), MOST_COLUMNS)
    rows = -(-len(layers) // columns)
    fresh = new_axes(ax, _size(rows, columns), margins=MARGINS)
    panels = grid_of_axes(fresh, (rows, columns), gap=GAP)
    colour, limits = colours(layers), _limits(table)
    for place, panel in enumerate(panels):
        if place >= len(layers):
            panel.set_axis_off()
            continue
        one = table.sel(layer=layers[place])
        _panel(panel, one, colour[layers[place]])
        _axes(panel, limits, left=place % columns == 0, below=place + columns >= len(layers))
        title(panel, layers[place], _correlation(one))
    kind = "conditional sd" if table.attrs["sd"] == "conditional" else "sd"
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9.5}
    fresh.annotate("size of the weight: |mean| / prior sd", (0.5, 0), (0, -24), ha="center", va="top", **place)
    fresh.annotate(f"{kind} / prior sd", (0, 0.5), (-44, 0), ha="center", va="center", rotation=90, **place)
    fresh.annotate(LEGEND, (0, 1), (0, 40), color=GREY, **(place | {"fontsize": 8.5}))
    note_convergence(fresh, table.attrs, lift=22)
    return fresh


def _size(rows: int, columns: int) -> tuple[float, float]:
    left, right, below, above = MARGINS
    width = CELL[0] * (columns + (columns - 1) * GAP[1])
    height = CELL[1] * (rows + (rows - 1) * GAP[0])
    return max(width, 2 * CELL[0]) + left + right, height + below + above


def _limits(table: xr.Dataset) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of both axes, which all layers share; the prior's sd is always on them."""
    sizes = table["size"].values[np.isfinite(table["size"].values)]
    ratios = [table[name].values.ravel() for name in ("sd_to_prior_q10", "sd_to_prior_q90")]
    known = np.concatenate([*ratios, [1.0]])
    known = known[np.isfinite(known)]
    across = (sizes.min(), sizes.max()) if sizes.size else (0.1, 1.0)
    low, high = known.min(), known.max()
    pad = max((high / low) ** 0.08, 1.005)
    return (across[0] / PADDING, across[1] * PADDING), (low / pad, high * pad)


def _panel(panel: Axes, layer: xr.Dataset, colour: Any) -> None:
    several = chains(layer)
    for place, one in enumerate(several):
        filled = one.isel(bin=np.flatnonzero(np.isfinite(one["size"].values)))
        size, edges = filled["size"].values, {"linewidth": 0}
        if place == 0:
            ends = [filled[name].values for name in ("null_low", "null_high", "sd_to_prior_q10", "sd_to_prior_q90")]
            panel.fill_between(size, *ends[:2], color=GREY, alpha=0.28, label="null", **edges)
            panel.fill_between(size, *ends[2:], color=colour, alpha=0.25, label="weights", **edges)
        line = {"linewidth": 1.6, "markersize": 2.6} if len(several) == 1 else {"linewidth": 0.9, "markersize": 1.2}
        panel.plot(size, filled["sd_to_prior_q50"].values, color=colour, marker="o", label="median", **line)
    panel.axhline(1, color="black", linewidth=0.9, linestyle="--", label="prior")
    _note_floor(panel, several[0])


def _note_floor(panel: Axes, one: xr.Dataset) -> None:
    """Write how many weights stand at the floor of the size, where they are a bin of their own."""
    first, count = float(one["size"].values[0]), float(one["bin_count"].values[0])
    if first <= FLOOR * 1.0001:
        share = count / float(one["num_weights"])
        panel.text(0.03, 0.04, f"{100 * share:.0f} % ≤ {FLOOR:g}", transform=panel.transAxes, fontsize=7.5, color=GREY)


def _axes(panel: Axes, limits: tuple[tuple[float, float], tuple[float, float]], *, left: bool, below: bool) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(*limits[0])
    panel.set_ylim(*limits[1])
    low, high = limits[1]
    subs = (1.0,) if high / low > 30 else (1.0, 2.0, 5.0) if high / low > 3 else tuple(np.arange(1, 10))
    if high / low < 1.5:
        panel.set_yscale("linear")  # over so short a range the two are one
    else:
        panel.yaxis.set_major_locator(LogLocator(subs=subs))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_major_locator(LogLocator(numticks=5))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    tidy(panel)
    panel.tick_params(labelsize=8, labelleft=left, labelbottom=below)
    panel.grid(color="#ececec", linewidth=0.6)


def _correlation(layer: xr.Dataset) -> str:
    """Write Spearman's correlation and its interval: over seeds, else that of the only network."""
    prefix = "seeds_" if "seeds_spearman" in layer else ""
    value = float(layer[f"{prefix}spearman"].mean())
    if not np.isfinite(value):
        return "no correlation: sds or sizes all alike" if float(layer["num_weights"].min()) else "no uncertainty"
    text = f"ρ {value:.2f}"
    ends = [layer[f"{prefix}spearman_{end}"] for end in ("low", "high")]
    if ends[0].size > 1:
        text += f", mean of {ends[0].size} networks"
    elif np.isfinite(ends[0].values):
        text += f" ({float(ends[0]):.2f} to {float(ends[1]):.2f})"
    return text.replace("-", "−")
