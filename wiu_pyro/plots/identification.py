"""Which layers and units the data left at the prior: the share of each layer's weights, and of each unit's."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import PercentFormatter

from wiu_pyro import diagnostics
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["identification"]

WIDTH, ROW = 9.0, 0.34  # inches
MARGINS = (1.25, 0.7, 0.6, 0.78)
PANELS = {"share": (0.0, 0.325), "output": (0.38, 0.26), "input": (0.7, 0.26)}  # left end, width
THICKNESS = 0.36  # of a strip, to each side
MAP = "viridis"


def identification(source: Any, *, chain: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the share of unidentified weights of each layer, and of each of its outputs and inputs as a strip.

    On the left a dot a network with its interval (over the seeds, where there are five or more), a hollow dot where
    mean and sd are both within the limit of the prior's. On the right each layer's units, those that the data determine
    most first, coloured by the share of their weights that is unidentified.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.identification` returned.
    chain : int
        Whose units, where there are several networks.
    ax : Axes, optional
        Where to draw; it is divided into three panels.

    Returns
    -------
    Axes
        Its `child_axes` are the panels: shares, outputs, inputs, and a colour bar.
    """
    table = as_table(source, diagnostics.identification)
    layers = [str(name) for name in table["layer"].values]
    height = max(ROW * len(layers), 0.8)
    fresh = new_axes(ax, (WIDTH, height + MARGINS[2] + MARGINS[3]), margins=MARGINS)
    fresh.set_axis_off()
    panels = {name: fresh.inset_axes((left, 0, width, 1)) for name, (left, width) in PANELS.items()}
    rows = np.arange(len(layers))[::-1]
    _shares(panels["share"], table, rows)
    for axis in ("output", "input"):
        _strips(panels[axis], chains(table)[chain], axis, rows)
    for panel in panels.values():
        panel.set_ylim(-0.6, len(layers) - 0.4)
        panel.set_yticks(rows, layers)
        panel.tick_params(axis="y", length=0, labelleft=panel is panels["share"])
        panel.spines["left"].set_visible(False)
        panel.set_xlim(-0.02 if panel is panels["share"] else 0, 1.02 if panel is panels["share"] else 1)
        panel.set_xticks([0, 0.5, 1])
        panel.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bar = fresh.figure.colorbar(
        ScalarMappable(Normalize(0, 1), MAP),
        cax=fresh.inset_axes((1.02, 0, 0.014, 1)),
        format=PercentFormatter(1, symbol=" %"),
        ticks=[0, 0.5, 1],
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    kind = "conditional" if table.attrs["sd"] == "conditional" else "marginal"
    limits = (
        f"unidentified: {kind} KL from the prior at most {table.attrs['kl_below']:g} nats; colour: the same by unit\n"
        f"hollow: mean and sd within {100 * table.attrs['within']:g} % of a prior sd"
    )
    title(fresh, "Weights the data left at the prior", limits)
    note_convergence(fresh, table.attrs, lift=25)
    return fresh


def _shares(panel: Axes, table: xr.Dataset, rows: np.ndarray) -> None:
    colour, seeds, several = COLOURS[0], "seeds_unidentified" in table, chains(table)
    for row, layer in zip(rows, table["layer"].values, strict=True):
        panel.axhline(row, color="#e4e4e4", linewidth=0.8, zorder=0)
        shifts = np.linspace(-0.15, 0.15, len(several)) if len(several) > 1 else [0.0]
        for one, shift in zip(several, shifts, strict=True):
            here = one.sel(layer=layer)
            small = seeds or len(several) > 1
            if not seeds:
                _interval(panel, here, "unidentified", row + shift, colour)
            panel.plot(float(here["at_prior"]), row + shift, "o", color=colour, markerfacecolor="white",
                       markersize=3 if small else 5.5)  # fmt: skip
            panel.plot(float(here["unidentified"]), row + shift, "o", color=colour,
                       markersize=3 if small else 5.5, alpha=0.5 if seeds else 1)  # fmt: skip
        if seeds:
            here = table.sel(layer=layer)
            _interval(panel, here, "seeds_unidentified", row, colour)
            panel.plot(float(here["seeds_unidentified"]), row, "o", color=colour, markersize=6)
    tidy(panel)
    panel.set_xlabel("unidentified weights", fontsize=9.5)


def _interval(panel: Axes, here: xr.Dataset, name: str, height: float, colour: Any) -> None:
    ends = [float(here[f"{name}_{end}"]) for end in ("low", "high")]
    if np.isfinite(ends).all():
        panel.plot(ends, [height] * 2, color=colour, linewidth=2.2, alpha=0.5, solid_capstyle="butt")


def _strips(panel: Axes, one: xr.Dataset, axis: str, rows: np.ndarray) -> None:
    for row, layer in zip(rows, one["layer"].values, strict=True):
        shares = one[f"{axis}_unidentified"].sel(layer=layer).values
        shares = np.sort(shares[np.isfinite(shares)])
        if not shares.size:
            panel.text(0.5, row, f"no {axis}s to tell apart", ha="center", va="center", fontsize=8, color=GREY)
            continue
        panel.imshow(shares[None], extent=(0, 1, row - THICKNESS, row + THICKNESS), aspect="auto", cmap=MAP,
                     vmin=0, vmax=1, interpolation="nearest")  # fmt: skip
        panel.text(1.02, row, f"{shares.size:,}", ha="left", va="center", fontsize=7, color=GREY)
    tidy(panel)
    panel.set_xlabel(f"{axis}s, sorted", fontsize=9.5)
