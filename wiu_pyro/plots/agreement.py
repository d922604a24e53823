"""How far posteriors agree with a reference, or among themselves: images first, then weights, units and layers."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wiu_pyro import diagnostics
from wiu_pyro.errors import SchemaError
from wiu_pyro.plots.style import GREY, MARKERS, as_table, colours, tidy

__all__ = ["agreement"]

ROW = 0.34  # inches
MARGIN = 1.75
WIDTH = 10.0
NORMAL = 1.96
LEVELS = {"weight_rank": "weights", "output_rank": "outputs", "input_rank": "inputs"}


def agreement(sources: Any, *, reference: Any = None) -> Figure:
    """Draw the rank correlations of two posteriors each: of the images' variance, and of the weights' and units' sd.

    With a reference only pairs with it are drawn, and a grey tick at each row marks what a perfect answer would reach
    against the reference's own noise. Bars span the intervals; where outputs and inputs are too few to be resampled,
    the reference's Monte Carlo noise. Conditional and marginal sds have a panel each.

    Parameters
    ----------
    sources : mapping or sequence of InferenceData or DataTree, or Dataset
        Posteriors, or what `wiu_pyro.diagnostics.agreement` returned.
    reference : InferenceData, DataTree or str, optional
        As `wiu_pyro.diagnostics.agreement` takes it, where posteriors are given.

    Returns
    -------
    Figure
        One panel for each kind of sd that any pair has. Posteriors whose fit had not converged have hollow markers.

    Raises
    ------
    SchemaError
        If no two of the posteriors have an uncertainty of the same kind.
    """
    table = as_table(sources, diagnostics.agreement, reference=reference)
    name = table.attrs["reference"]
    if name:
        table = table.isel(pair=np.flatnonzero(table["with_reference"].values == 1))
    kinds = [str(kind) for kind in table["kind"].values if bool(table["network_rank"].sel(kind=kind).notnull().any())]
    rows = _rows(table)
    if not rows:
        raise SchemaError(
            "Two posteriors with an uncertainty of the same kind are needed, but these have none in common: a point "
            "estimate has none at all. Set others side by side."
        )
    height = MARGIN + ROW * len(rows)
    figure, axes = plt.subplots(
        1, max(len(kinds), 1), figsize=(WIDTH, height), layout="constrained", sharey=True, squeeze=False
    )
    for panel, kind in zip(axes[0], kinds or ["conditional"], strict=True):
        _panel(panel, table, kind, rows)
        panel.set_title(f"{kind} sd", loc="left", fontsize=11)
        panel.set_xlabel(f"rank correlation{f' with {name}' if name else ''}", fontsize=9.5)
        panel.tick_params(axis="y", labelleft=panel is axes[0][0])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    unsure = name and "no" in (table.attrs["reference_function"], table.attrs["reference_weights"])
    if unsure:
        axes[0][-1].set_title(f"{name}: not converged", loc="right", fontsize=9, style="italic", color=GREY)
    return figure


def _rows(table: xr.Dataset) -> list[tuple[str, str, str]]:
    """Return label, variable and layer of each row, those without any value left out."""
    rows = [("images (function)", "function_rank", ""), ("all weights", "network_rank", "")]
    for layer in (str(layer) for layer in table["layer"].values):
        rows += [(f"{layer}: {words}", name, layer) for name, words in LEVELS.items()]
    return [row for row in rows if bool(_values(table, row[1], row[2]).notnull().any())]


def _values(table: xr.Dataset, name: str, layer: str) -> xr.DataArray:
    return table[name].sel(layer=layer) if layer else table[name]


def _panel(ax: Axes, table: xr.Dataset, kind: str, rows: list[tuple[str, str, str]]) -> None:
    pairs = [str(pair) for pair in table["pair"].values]
    colour = colours(pairs)
    places, lowest = np.arange(len(rows))[::-1], 0.0
    shifts = np.linspace(-0.26, 0.26, len(pairs)) if len(pairs) > 1 else [0.0]
    for place in places:
        ax.axhline(place, color="#ececec", linewidth=0.8, zorder=0)
    for number, pair in enumerate(pairs):
        one = table.sel(pair=pair)
        found = [_figure(one, name, layer, kind) for _, name, layer in rows]
        value, low, high = (np.array(column) for column in zip(*found, strict=True))
        lowest = float(np.nanmin([lowest, *low, *value]))
        hollow = _unsettled(table, one)
        label = str(one["first"].item()) if table.attrs["reference"] else pair
        ax.errorbar(
            value,
            places - shifts[number],
            xerr=np.nan_to_num(np.abs([value - low, high - value])),
            fmt=MARKERS[number % len(MARKERS)],
            markersize=5.5,
            color=colour[pair],
            markerfacecolor="white" if hollow else colour[pair],
            elinewidth=1.2,
            label=f"{label} (not converged)" if hollow else label,
        )
    _ceilings(ax, table, kind, rows, places)
    tidy(ax)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(places, [label for label, *_ in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(max(-1.04, lowest - 0.06), 1.04)


def _figure(one: xr.Dataset, name: str, layer: str, kind: str) -> tuple[float, float, float]:
    """Return a correlation of one pair with its interval, which is that of the reference's noise if it has no other."""
    place = ({"layer": layer} if layer else {}) | ({"kind": kind} if "kind" in one[name].dims else {})
    value, error = (float(one[f"{name}{end}"].sel(place)) for end in ("", "_mc"))
    low, high = max(-1.0, value - NORMAL * error), min(1.0, value + NORMAL * error)
    if f"{name}_low" in one:
        ends = [float(one[f"{name}{end}"].sel(place)) for end in ("_low", "_high")]
        if np.isfinite(ends).all():
            low, high = np.nanmin([low, ends[0]]), np.nanmax([high, ends[1]])
    return value, low, high


def _unsettled(table: xr.Dataset, one: xr.Dataset) -> bool:
    names = [str(one[side].item()) for side in ("first", "second")]
    own = names[:1] if table.attrs["reference"] else names
    return any(str(table["converged"].sel(posterior=name).item()) == "no" for name in own)


def _ceilings(ax: Axes, table: xr.Dataset, kind: str, rows: list[tuple[str, str, str]], places: np.ndarray) -> None:
    """Mark at each row what a perfect answer would reach, the highest over the pairs."""
    for (_, name, layer), place in zip(rows, places, strict=True):
        values = _values(table, f"{name}_ceiling", layer)
        values = values.sel(kind=kind) if "kind" in values.dims else values
        if bool(values.notnull().any()):
            ax.plot([float(values.max())] * 2, [place - 0.4, place + 0.4], color=GREY, linewidth=1.6, zorder=1)
