"""What is kept and what is lost when only some layers are uncertain, set by set."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.plots.style import COLOURS, GREY, new_axes, note_convergence, tidy

__all__ = ["stochastic_layers"]

SHARE = "variance_share"
LABELS = {
    SHARE: "share of the functional variance",
    "nll": "NLL − the whole's, nats an image",
    "brier": "Brier score − the whole's",
    "error": "error rate − the whole's",
    "ece": "calibration error − the whole's",
    "squared_error": "squared error − the whole's",
    "auroc_entropy": "AUROC of entropy − the whole's",
    "auroc_mutual_information": "AUROC of mutual information\n− the whole's",
    "output_variance": "functional variance − the whole's",
    "probability_variance": "variance of probabilities − the whole's",
}
DRAWN = (SHARE, "nll", "brier", "squared_error", "auroc_mutual_information")
ROW = 0.36  # inches
STYLES = {"restricted": (COLOURS[0], "o", 0.13), "refitted": (COLOURS[4], "D", -0.13)}


def stochastic_layers(table: xr.Dataset, metric: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Draw, for each set of uncertain layers, its share of the variance and how its scores differ from the whole's.

    A row is a set; the last one, all layers, is the whole posterior, the first one, none, the point estimate. Discs are
    restricted posteriors, diamonds refitted ones; where both are one only the disc is drawn. A mark is full where the
    interval leaves out "as the whole".

    Parameters
    ----------
    table : Dataset
        What `wiu_pyro.interventions.stochastic_layers` returned, or the same from a file.
    metric : str, optional
        One metric of the table, or ``"variance_share"``; share, NLL, Brier score and AUROC, if not given.
    ax : Axes, optional
        Where to draw; needs one `metric`.

    Returns
    -------
    Figure or Axes
        A figure of up to four panels, or the axes of the one metric.

    Raises
    ------
    DataError
        If the metric is unknown, or `ax` is given without a metric.
    SchemaError
        If the table is another one.
    """
    if not isinstance(table, xr.Dataset) or SHARE not in table or "member" not in table:
        raise SchemaError(
            "What wiu_pyro.interventions.stochastic_layers returned is needed, but this is another "
            f"{type(table).__name__}. Load the file with xarray.load_dataset."
        )
    if metric is None and ax is not None:
        raise DataError("One pair of axes holds one metric, but none was named. Pass metric='nll', for example.")
    known = [SHARE, *(str(name) for name in table["metric"].values)]
    if metric is not None and metric not in known:
        raise DataError(f"Unknown metric '{metric}'. {near_matches(metric, known)}")
    height = 1.25 + ROW * table.sizes["layer_set"]
    if metric is not None:
        fresh = new_axes(ax, (6, height))
        _panel(fresh, table, metric)
        _annotate(fresh, table)
        note_convergence(fresh, table.attrs, lift=26)
        return fresh
    drawn = [name for name in DRAWN if name in known]
    size = (2.7 * len(drawn) + 1.2, height)
    figure, axes = plt.subplots(1, len(drawn), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for panel, name in zip(axes[0], drawn, strict=True):
        _panel(panel, table, name)
    for panel in axes[0][1:]:
        panel.tick_params(axis="y", labelleft=False)
    _annotate(axes[0][0], table)
    _legend(axes[0][-1], table)
    note_convergence(axes[0][-1], table.attrs, lift=16)
    return figure


def _panel(ax: Axes, table: xr.Dataset, metric: str) -> None:
    rows = np.arange(table.sizes["layer_set"])[::-1]
    for row in rows:
        ax.axhline(row, color="#eeeeee", linewidth=0.8, zorder=0)
    whole = 1.0 if metric == SHARE else 0.0
    ax.axvline(whole, color=GREY, linewidth=0.9, zorder=1)
    found = table.sel(response="output") if metric == SHARE else table.sel(metric=metric)
    name = SHARE if metric == SHARE else "difference"
    for kind in _kinds(table):
        colour, marker, shift = STYLES[kind]
        value, low, high = (found[f"{name}{end}"].sel(kind=kind).values for end in ("", "_low", "_high"))
        heights = rows + (shift if len(_kinds(table)) > 1 else 0.0)
        ends = np.isfinite(low) & np.isfinite(high)
        ax.hlines(heights[ends], low[ends], high[ends], color=colour, linewidth=2)
        apart = ends & ((low > whole) | (high < whole))
        for full, style in ((True, {"markerfacecolor": colour}), (False, {"markerfacecolor": "white"})):
            chosen = apart == full
            options: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none"}
            ax.plot(value[chosen], heights[chosen], label=f"{kind}, apart" if full else kind, **options, **style)
    tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.set_yticks(rows, [_name(str(one)) for one in table["layer_set"].values])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(LABELS.get(metric, metric.replace("_", " ")), fontsize=9.5)


def _name(layer_set: str) -> str:
    return {"none": "none (point estimate)", "all": "all layers"}.get(layer_set, layer_set)


def _kinds(table: xr.Dataset) -> list[str]:
    """Return the kinds that are to be drawn: refitted ones only where they are no copy of the restricted."""
    value = table["value"].transpose("kind", "chain", "layer_set", "metric")
    pair = [value.sel(kind=kind).values for kind in STYLES]
    proper = slice(1, -1)  # neither none nor all, which both kinds share
    held = [kind for kind, one in zip(STYLES, pair, strict=True) if np.isfinite(one[:, proper]).any()]
    if len(held) == 2 and np.allclose(*pair, rtol=1e-6, atol=0, equal_nan=True):
        return ["restricted"]
    return held or ["restricted"]


def _annotate(ax: Axes, table: xr.Dataset) -> None:
    """Write what the intervals are above the first panel."""
    level, num = f"{100 * table.attrs['level']:.0f} %", int(table.attrs["num_seeds"])
    over = f"{num} seeds" if table.attrs["interval"] == "seeds" else f"{table.attrs['num_images']} images"
    network = "" if table.attrs["interval"] == "seeds" else " of one network" if num == 1 else f" of {num} networks"
    text = f"{level} intervals over {over}{network},\npaired, simultaneous over the sets"
    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (0, 5), fontsize=8.5, color=GREY, **place).set_in_layout(False)


def _legend(ax: Axes, table: xr.Dataset) -> None:
    kinds = _kinds(table)
    if len(kinds) < 2:
        both = bool(table["value"].sel(kind="refitted").notnull().all())
        text = "restricted and refitted are one" if both else f"{kinds[0]} alone"
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(text, (1, 1), (0, 5), fontsize=8.5, color=GREY, ha="right", **place)
        return
    marks = [
        Line2D([], [], color=STYLES[kind][0], marker=STYLES[kind][1], linestyle="none", markersize=5, label=kind)
        for kind in kinds
    ]
    ax.legend(handles=marks, frameon=False, fontsize=8.5, ncols=2, loc="lower right", bbox_to_anchor=(1.02, 1.0),
              handletextpad=0.1, columnspacing=0.8, borderpad=0.1)  # fmt: skip
