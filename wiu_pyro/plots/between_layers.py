"""Pairs of layers: how far apart, with intervals that hold together, and the effect sizes beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wiu_pyro import diagnostics
from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.plots.style import COLOURS, GREY, as_table, new_axes, note_convergence, tidy

__all__ = ["between_layers"]

PANELS = {
    "contraction": "difference in contraction",
    "snr_q50": "difference in median |mean| / sd",
    "kl_per_weight": "difference in KL a weight, nats",
}
QUANTITIES = {"contraction": ("contraction", "o"), "log_snr": ("|mean| / sd", "D")}
ROW = 0.34  # inches


def between_layers(
    source: Any, metric: str | None = None, *, max_pairs: int = 15, ax: Axes | None = None
) -> Figure | Axes:
    """Draw the difference between the layers of each pair, with its interval, and how far their weights lie apart.

    An interval that leaves out zero is blue with a full dot, one that holds it grey with a hollow dot; a difference
    without an interval is a cross. Over five seeds or more the interval is over seeds; else there is one within each
    network, drawn thin with marks at its ends, and named so.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.between_layers` returned.
    metric : str, optional
        One metric of the table; contraction, median signal-to-noise, KL a weight and Cliff's delta, if not given.
    max_pairs : int
        Most rows; of more pairs those of the largest Cliff's delta of the contraction are drawn, and it is said.
    ax : Axes, optional
        Where to draw; needs one `metric`.

    Returns
    -------
    Figure or Axes
        A figure of up to four panels, or the axes of the one metric.

    Raises
    ------
    DataError
        If the metric is unknown, `max_pairs` below 1, or `ax` is given without a metric.
    """
    if metric is None and ax is not None:
        raise DataError(
            "One pair of axes holds one metric, but none was named. Pass metric='contraction', for example."
        )
    if max_pairs < 1:
        raise DataError(f"At least one pair is needed, got max_pairs={max_pairs}. Use 15.")
    whole = as_table(source, diagnostics.between_layers)
    known = whole["metric"].values.tolist()
    if metric is not None and metric not in known:
        raise DataError(f"Unknown metric '{metric}'. {near_matches(metric, known)}")
    table = _largest(whole, max_pairs)
    height = 1.35 + ROW * table.sizes["pair"]
    if metric is not None:
        fresh = new_axes(ax, (6, height))
        _forest(fresh, table, metric, PANELS.get(metric, f"difference in {metric.replace('_', ' ')}"))
        _annotate(fresh, table, whole.sizes["pair"])
        note_convergence(fresh, table.attrs)
        return fresh
    drawn = [name for name in PANELS if name in known and bool(table["difference"].sel(metric=name).notnull().any())]
    size = (2.6 * (len(drawn) + 1) + 1.6, height)
    figure, axes = plt.subplots(1, len(drawn) + 1, figsize=size, layout="constrained", sharey=True, squeeze=False)
    for panel, name in zip(axes[0], drawn, strict=False):
        _forest(panel, table, name, PANELS[name])
    _effects(axes[0][-1], table)
    for panel in axes[0][1:]:
        panel.tick_params(axis="y", labelleft=False)
    _annotate(axes[0][0], table, whole.sizes["pair"])
    note_convergence(axes[0][-1], table.attrs, lift=14)
    return figure


def _largest(table: xr.Dataset, max_pairs: int) -> xr.Dataset:
    """Return the pairs that are furthest apart weight by weight, in the order of the network."""
    if table.sizes["pair"] <= max_pairs:
        return table
    delta = table["cliffs_delta"].sel(quantity="contraction")
    size = np.abs((delta.mean("chain") if "chain" in delta.dims else delta).values)
    return table.isel(pair=np.sort(np.argsort(-np.nan_to_num(size, nan=-1.0), kind="stable")[:max_pairs]))


def _rows(table: xr.Dataset) -> np.ndarray:
    return np.arange(table.sizes["pair"])[::-1]


def _forest(ax: Axes, table: xr.Dataset, metric: str, label: str) -> None:
    row = table.sel(metric=metric)
    heights, value = _rows(table), row["difference"].values
    for height in heights:
        ax.axhline(height, color="#eeeeee", linewidth=0.8, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    low, high = _ends(row)
    steps = _shifts(len(low))
    for place, height in enumerate(heights):
        known = np.isfinite(low[:, place])
        apart = bool(known.any()) and bool(np.all(low[known, place] > 0) or np.all(high[known, place] < 0))
        colour = COLOURS[0] if apart else GREY
        for network in np.flatnonzero(known):
            at = height - steps[network]
            over_seeds = table.attrs["interval"] == "seeds"
            style = {"linewidth": 2.2} if over_seeds else {"linewidth": 1.1, "marker": "|", "markersize": 6}
            ax.plot([low[network, place], high[network, place]], [at, at], color=colour, **style)
        if np.isfinite(value[place]):
            marker = (
                {"marker": "o", "markerfacecolor": colour if apart else "white"} if known.any() else {"marker": "x"}
            )
            ax.plot(value[place], height, linestyle="none", color=colour, markersize=6, **marker)
    _finish(ax, table, label)


def _ends(row: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals' ends, (network, pair); one row over seeds."""
    kind = "seeds" if row.attrs["interval"] == "seeds" else "within"
    ends = [row[f"{kind}_{end}"] for end in ("low", "high")]
    low, high = (end.transpose("chain", "pair").values if "chain" in end.dims else end.values[None] for end in ends)
    return low, high


def _shifts(number: int) -> Sequence[float]:
    return np.linspace(-0.2, 0.2, number).tolist() if number > 1 else [0.0]


def _effects(ax: Axes, table: xr.Dataset) -> None:
    heights = _rows(table)
    for height in heights:
        ax.axhline(height, color="#eeeeee", linewidth=0.8, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    for shift, colour, (quantity, (label, marker)) in zip(
        (0.13, -0.13), COLOURS[4:0:-2], QUANTITIES.items(), strict=True
    ):
        row = table.sel(quantity=quantity)
        delta = row["cliffs_delta"]
        value = (delta.mean("chain") if "chain" in delta.dims else delta).values
        if "cliffs_delta_low" in row:
            ends = np.clip([row["cliffs_delta_low"].values, row["cliffs_delta_high"].values], -1, 1)
            ax.hlines(heights + shift, ends[0], ends[1], color=colour, linewidth=2)
        ax.plot(value, heights + shift, marker, color=colour, markersize=5, linestyle="none", label=label)
    _finish(ax, table, "Cliff's delta, weight by weight")
    ax.set_xlim(-1.05, 1.05)
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handletextpad=0.1,
              columnspacing=0.8, borderpad=0.1)  # fmt: skip


def _finish(ax: Axes, table: xr.Dataset, label: str) -> None:
    tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.set_yticks(_rows(table), [str(name) for name in table["pair"].values])
    ax.set_ylim(-0.6, table.sizes["pair"] - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(label, fontsize=9.5)


def _annotate(ax: Axes, table: xr.Dataset, total: int) -> None:
    """Write what the intervals are above the first panel."""
    level, num = f"{100 * table.attrs['level']:.0f} %", int(table.attrs["num_seeds"])
    inside = "this one network" if num == 1 else f"each of {num} networks"
    if table.attrs["interval"] == "seeds":
        text = f"{level} intervals over {num} seeds,\nsimultaneous over the pairs"
    elif bool(table["within_low"].notnull().any()):
        text = f"{level} intervals within {inside}:\nother units, not another training"
    else:
        text = f"no intervals within {inside}:\ntoo few units"
    if table.sizes["pair"] < total:
        text += f"; {table.sizes['pair']} of {total} pairs"
    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (0, 5), fontsize=8.5, color=GREY, **place)
