"""The distribution of each metric over the weights, layer under layer."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wiu_pyro.diagnostics import weight_distribution
from wiu_pyro.diagnostics.weight_distribution import FLOOR
from wiu_pyro.errors import DataError
from wiu_pyro.plots.style import GREY, as_table, chains, colours, new_axes, note_convergence, tidy

__all__ = ["layer_uncertainty"]

PANELS = ("sd_to_prior", "contraction", "signal_to_noise")
HEIGHT = 0.66  # of a ridge, in rows; above it stands the note
ROW = 0.55  # inches


def layer_uncertainty(source: Any, metric: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Draw how a metric is distributed over the weights of each layer, one ridge a layer, the first layer on top.

    Each ridge is scaled to its own peak. Under it the bar spans 5 to 95 % of the weights, the dot is the median, an
    arrow where that lies beyond the axis. Several chains are drawn over each other. Signal-to-noise is drawn from 0.001
    up; the share of weights below is written beside the ridge. A layer at its point estimate has no ridge but these
    words; where single weights are held, the ridge is that of the others, and their share stands beside it.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.weight_distribution` returned (then its metric is drawn).
    metric : str, optional
        As in `weight_distribution`; all of sd / prior sd, contraction and signal-to-noise, if not given.
    ax : Axes, optional
        Where to draw; needs one `metric`.

    Returns
    -------
    Figure or Axes
        A figure of three panels, or the axes of the one metric.

    Raises
    ------
    DataError
        If `ax` is given without a metric.
    """
    if isinstance(source, xr.Dataset) or metric is not None:
        table = as_table(source, weight_distribution, **({"metric": metric} if metric else {}))
        fresh = new_axes(ax, (6, 1.2 + ROW * table.sizes["layer"]))
        _panel(fresh, table, names=True)
        note_convergence(fresh, table.attrs)
        return fresh
    if ax is not None:
        raise DataError(
            "One pair of axes holds one metric, but none was named. Pass metric='sd_to_prior', for example."
        )
    tables = [weight_distribution(source, name) for name in PANELS]
    size = (10, 1.3 + ROW * tables[0].sizes["layer"])
    figure, axes = plt.subplots(1, len(PANELS), figsize=size, layout="constrained", sharey=True)
    for panel, table in zip(axes, tables, strict=True):
        _panel(panel, table, names=panel is axes[0])
    note_convergence(axes[-1], tables[0].attrs)
    return figure


def _panel(ax: Axes, table: xr.Dataset, *, names: bool) -> None:
    layers = [str(name) for name in table["layer"].values]
    colour = colours(layers)
    left, right = table["left"].values, table["right"].values
    edges = np.append(left, right[-1])
    several = chains(table)
    for place, layer in enumerate(layers):
        base = len(layers) - 1 - place
        if bool((_uncertain(table, layer) == 0).all()):
            text = "point estimate"
            ax.text(
                0.02, base + 0.1, text, transform=ax.get_yaxis_transform(), fontsize=8.5, color=GREY, style="italic"
            )
            continue
        peak = np.nanmax([float(one["density"].sel(layer=layer).max()) for one in several]) or 1.0
        for one in several:
            row = one.sel(layer=layer)
            if not np.isfinite(float(row["q50"])) and bool(row["density"].isnull().all()):
                continue  # at its point estimate in this chain
            heights = base + HEIGHT * row["density"].values / peak
            alpha = 0.75 if len(several) == 1 else 0.25
            ax.stairs(
                heights, edges, baseline=base, fill=True, color=colour[layer], alpha=alpha, linewidth=0, label=layer
            )
            spread = np.clip([float(row["q05"]), float(row["q95"])], edges[0], edges[-1])
            ax.plot(spread, [base - 0.07] * 2, color=colour[layer], linewidth=2, solid_capstyle="butt")
            _median(ax, float(row["q50"]), base - 0.07, edges, colour[layer])
        _note_share(ax, table, layer, base)
    tidy(ax)
    if table.attrs["log"]:
        ax.set_xscale("log")
    ax.set_xlim(edges[0], edges[-1] + (0 if table.attrs["log"] else 0.02 * (edges[-1] - edges[0])))
    ax.set_ylim(-0.25, len(layers))
    ax.set_xlabel(table.attrs["label"])
    ax.spines["left"].set_visible(False)
    ax.set_yticks(range(len(layers)), layers[::-1])
    ax.tick_params(axis="y", length=0, labelleft=names)
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)


def _median(ax: Axes, value: float, height: float, edges: np.ndarray, colour: Any) -> None:
    """Mark a median: by a dot, or by an arrow at the end of the axis beyond which it lies."""
    marker = "<" if value < edges[0] else ">" if value > edges[-1] else "o"
    place = float(np.clip(value, edges[0], edges[-1]))
    ax.plot(place, height, marker, color=colour, markersize=5.5, markeredgecolor="white", clip_on=False)


def _uncertain(table: xr.Dataset, layer: str) -> xr.DataArray:
    """Return the share of a layer's weights that have a posterior, one for each chain."""
    return table["uncertain"].sel(layer=layer) if "uncertain" in table else xr.DataArray(1.0)


def _note_share(ax: Axes, table: xr.Dataset, layer: str, base: int) -> None:
    """Write how much of a layer the panel cannot show: weights at the prior, or below the axis."""
    notes = []
    known = float(_uncertain(table, layer).mean())
    if known < 1 and table.attrs["metric"] == "sd_to_prior":
        notes.append(f"{100 * known:.2g} % of weights have a posterior")
    name, words = ("below_floor", f"below {FLOOR:g}") if table.attrs["log"] else ("at_prior", "at the prior")
    if name in table and table.attrs["metric"] in ("sd_to_prior", "signal_to_noise"):
        share = float(table[name].sel(layer=layer).mean())
        if share >= 0.005:
            notes.append(f"{100 * share:.0f} % of {'weights' if known == 1 else 'these'} {words}")
    if notes:
        text = "; ".join(notes)
        ax.text(0.02, base + HEIGHT + 0.03, text, transform=ax.get_yaxis_transform(), fontsize=8.5, color=GREY)
