"""Layers by epochs: how far each layer was from where it settled, and when early stopping would have stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from wiu_pyro import diagnostics
from wiu_pyro.plots.evolution import shade_falling_rate
from wiu_pyro.plots.style import GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["convergence"]

WIDTH, ROW = 7.0, 0.42  # inches
MARGINS = (1.25, 0.75, 0.55, 0.85)
MAP, LIMITS = "RdYlBu_r", (1 / 16, 16)  # of the distance, in tolerances; the middle of the colours is the tolerance
HALF = 0.4  # of a row's height


def convergence(source: Any, *, chain: int = 0, ax: Axes | None = None) -> Axes:
    """Draw how far each layer was from its end at each epoch, in tolerances: red is further, blue within.

    The worst of mean, sd and KL counts. A black mark stands where the layer had converged, with its interval as a bar;
    a dotted line where early stopping on the loss would have stopped. Where the learning rate fell there is no colour.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.convergence` returned.
    chain : int
        Which network, where there are several.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        One image, rows from above in the order of the layers.
    """
    table = as_table(source, diagnostics.convergence)
    one = chains(table)[chain]
    layers = [str(name) for name in table["layer"].values]
    height = ROW * len(layers) + MARGINS[2] + MARGINS[3]
    fresh = new_axes(ax, (WIDTH, height), margins=MARGINS)
    _map(fresh, one, len(layers))
    for row, layer in enumerate(layers):
        _mark(fresh, one.sel(layer=layer), row)
    stop = float(one["early_stop_epoch"])
    if np.isfinite(stop):
        fresh.axvline(stop, color="white", linewidth=2.6)  # so that it is seen on red too
        fresh.axvline(stop, color="black", linestyle=":", linewidth=1.5)
    _axes(fresh, table, layers)
    title(fresh, "How far was each layer from where it settled?", _detail(table, stop))
    note_convergence(fresh, table.attrs, lift=16)
    return fresh


def _map(ax: Axes, one: xr.Dataset, rows: int) -> None:
    """Draw the distances, one cell for each record: from the epoch of the record before to its own."""
    full = one["epoch"].values <= one.attrs["full_rate_epochs"] + 1e-9
    distance = one["distance"].max("quantity").transpose("layer", "epoch").values[:, full]
    edges = np.concatenate([[0.0], one["epoch"].values[full]])
    shown = np.ma.masked_invalid(np.clip(distance, *LIMITS))
    if shown.shape[1]:
        ax.pcolormesh(edges, np.arange(rows + 1) - 0.5, shown, cmap=MAP, norm=LogNorm(*LIMITS), rasterized=True)
    mappable = ScalarMappable(LogNorm(*LIMITS), MAP)
    bar = ax.figure.colorbar(mappable, cax=ax.inset_axes((1.02, 0, 0.02, 1)))
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(FixedLocator([1 / 16, 1 / 4, 1, 4, 16]))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    names = {1 / 16: "1/16", 0.25: "1/4", 1.0: "1", 4.0: "4", 16.0: "≥ 16"}
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, "")))
    bar.ax.tick_params(labelsize=8)


def _mark(ax: Axes, row: xr.Dataset, place: int) -> None:
    """Mark when the layer had converged, and its interval."""
    epoch, last = float(row["converged_epoch"]), float(row.attrs["full_rate_epochs"])
    if np.isfinite(epoch):
        ax.plot([epoch, epoch], [place - HALF, place + HALF], color="black", linewidth=2, solid_capstyle="butt")
        ends = [min(float(row[f"converged_epoch_{end}"]), last) for end in ("low", "high")]
        ax.plot(ends, [place, place], color="black", linewidth=1.2)
    elif np.isinf(epoch):
        ax.text(last, place, "not converged ", ha="right", va="center", fontsize=8)
    else:
        ax.text(0, place, " not assessed", ha="left", va="center", fontsize=8, color=GREY)


def _axes(ax: Axes, table: xr.Dataset, layers: list[str]) -> None:
    ax.set_xlim(0, float(table["epoch"].max()))
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.set_yticks(np.arange(len(layers)), layers)
    ax.set_xlabel("epoch", fontsize=9.5)
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    tidy(ax)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    shade_falling_rate(ax, table)


def _detail(table: xr.Dataset, stop: float) -> str:
    mark = f"black: converged, within {100 * table.attrs['tolerance']:g} % (colour: 1) from there on, and its interval"
    more = ["dotted: early stopping on the loss"] if np.isfinite(stop) else []
    if table.attrs["full_rate_epochs"] < float(table["epoch"].max()):
        more.append("grey: the learning rate falls")
    return "\n".join(filter(None, [mark, "; ".join(more)]))
