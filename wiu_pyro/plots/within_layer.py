"""Along what the weights within each layer differ: shares of the spread, and the spectra of the Kronecker factors."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from wiu_pyro import diagnostics
from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, colours, new_axes, note_convergence, tidy

__all__ = ["within_layer"]

PANELS = {
    "log_sd_to_prior": "spread of log sd",
    "log_snr": "spread of log |mean| / sd",
    "log_conditional_sd_to_prior": "spread of log conditional sd",
}
REST = "#d9d9d9"
PARTS = {
    "output": (COLOURS[0], "outputs"),
    "input": (COLOURS[1], "inputs"),
    "position": (COLOURS[2], "kernel positions"),
    "rest": (REST, "from weight to weight"),
}
CARRIERS = {"output": PARTS["output"], "input": PARTS["input"], "both together": (REST, "both together")}
ROW = 0.42  # inches
LABELLED = 0.09  # share of a bar from which its figure is written into it


def within_layer(source: Any, quantity: str | None = None, *, chain: int = 0, ax: Axes | None = None) -> Figure | Axes:
    """Draw how much of each layer's spread lies between outputs, inputs, kernel positions, and from weight to weight.

    Where the posterior has Kronecker factors, two more panels: how much of the spread between their eigendirections
    lies on each side, and the spectra themselves, relative to the prior: above 1 the data outweigh it.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.within_layer` returned.
    quantity : str, optional
        One quantity of the table; log sd and log signal-to-noise, and the factors, if not given.
    chain : int
        Whose spectra, where there are several networks; shares are averaged over them.
    ax : Axes, optional
        Where to draw; needs one `quantity`.

    Returns
    -------
    Figure or Axes
        A figure of two to four panels, or the axes of the one quantity.

    Raises
    ------
    DataError
        If the quantity is unknown, or `ax` is given without one.
    """
    if quantity is None and ax is not None:
        raise DataError(
            "One pair of axes holds one quantity, but none was named. Pass quantity='log_sd_to_prior', for example."
        )
    table = as_table(source, diagnostics.within_layer)
    known = table["quantity"].values.tolist()
    if quantity is not None and quantity not in known:
        raise DataError(f"Unknown quantity '{quantity}'. {near_matches(quantity, known)}")
    height = 1.35 + ROW * table.sizes["layer"]
    if quantity is not None:
        fresh = new_axes(ax, (6, height))
        _bars(fresh, _over_networks(table["share"].sel(quantity=quantity)), "part", PARTS)
        fresh.set_xlabel(PANELS.get(quantity, quantity), fontsize=9.5)
        fresh.legend(**_legend())
        note_convergence(fresh, table.attrs, lift=16)
        return fresh
    factors = "spectrum" in table
    sides = factors and bool(table["carried"].notnull().any())
    widths = [3.4, 3.0] + [3.0] * sides + [3.2] * factors
    size = (sum(widths) + 0.6, max(height, 2.6) if factors else height)
    figure, axes = plt.subplots(
        1, len(widths), figsize=size, layout="constrained", squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    figure.get_layout_engine().set(wspace=0.05)
    panels = list(axes[0])
    for panel, name in zip(panels, ("log_sd_to_prior", "log_snr"), strict=False):
        _bars(panel, _over_networks(table["share"].sel(quantity=name)), "part", PARTS)
        panel.set_xlabel(PANELS[name], fontsize=9.5)
    if sides:
        _bars(panels[2], _over_networks(table["carried"]), "carrier", CARRIERS)
        panels[2].set_xlabel("spread between eigendirections", fontsize=9.5)
    for panel in panels[1 : 2 + sides]:
        panel.tick_params(axis="y", labelleft=False)
    if factors:
        _spectra(panels[-1], chains(table)[chain])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    note_convergence(panels[-1], table.attrs)
    return figure


def _over_networks(values: xr.DataArray) -> xr.DataArray:
    return values.mean("chain") if "chain" in values.dims else values


def _bars(ax: Axes, share: xr.DataArray, dim: str, parts: dict[str, tuple[str, str]]) -> None:
    layers = [str(name) for name in share["layer"].values]
    rows = np.arange(len(layers))[::-1]
    left = np.zeros(len(layers))
    for part, (colour, label) in parts.items():
        width = share.sel({dim: part}).values
        if part == "position" and not (np.nan_to_num(width) > 0).any():
            continue
        ax.barh(rows, np.nan_to_num(width), left=left, height=0.62, color=colour, label=label, linewidth=0)
        for row, start, value in zip(rows, left, width, strict=True):
            if value >= LABELLED:
                ink = "white" if part == "output" else "black"
                ax.text(start + value / 2, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=ink)
        left = left + np.nan_to_num(width)
    for row, total in zip(rows, left, strict=True):
        if total == 0:
            ax.text(0.02, row, "nothing to split", va="center", fontsize=8.5, color=GREY)
    tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for label, side in zip(ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    ax.set_ylim(-0.6, len(layers) - 0.4)
    ax.set_yticks(rows, layers)
    ax.tick_params(axis="y", length=0)


def _spectra(ax: Axes, one: xr.Dataset) -> None:
    layers = [str(name) for name in one["layer"].values]
    colour = colours(layers)
    values = one["spectrum"].values
    floor = max(float(np.nanmax(values)) * 1e-9, float(np.nanmin(np.where(values > 0, values, np.nan))))
    for layer in layers:
        for side, style in {"input": "-", "output": "--"}.items():
            heights = one["spectrum"].sel(layer=layer, side=side).values
            shown = np.where(heights >= floor, heights, np.nan)
            ax.plot(one["rank"].values, shown, style, color=colour[layer], linewidth=1.5, label=f"{layer} {side}")
    ax.axhline(1, color=GREY, linewidth=0.9, zorder=0)
    ax.annotate("as much as the prior", (1, 1), (0, 2), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", fontsize=7.5, color=GREY)  # fmt: skip
    tidy(ax)
    ax.set_yscale("log")
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set_xlabel("directions of one side, by rank", fontsize=9.5)
    ax.set_ylabel("mean curvature / prior's", fontsize=9)
    named = [
        Line2D([], [], color=colour[layer], label=layer)
        for layer in (layers if len(layers) <= 6 else layers[:: len(layers) - 1])
    ]
    lines = [
        Line2D([], [], color=GREY, linestyle=style, label=side)
        for side, style in {"inputs": "-", "outputs": "--"}.items()
    ]
    ax.legend(handles=named + lines, frameon=False, fontsize=7.5, loc="best", handlelength=1.6, labelspacing=0.25)


def _legend() -> dict[str, Any]:
    return {"frameon": False, "fontsize": 8.5, "loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 4,
            "columnspacing": 0.9, "handlelength": 1.2, "borderpad": 0.1}  # fmt: skip
