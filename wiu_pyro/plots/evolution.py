"""The layers through the training: curves of their figures, with the epochs at which they settled."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wiu_pyro import diagnostics
from wiu_pyro.diagnostics.convergence import QUANTITIES
from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.plots.style import GREY, chains, colours, grid_of_axes, new_axes, note_convergence, tidy, title

__all__ = ["evolution", "shade_falling_rate"]

LABELS = {
    "mean_to_prior": "size of the means, prior sds",
    "sd_to_prior": "sd / prior sd, median",
    "kl_per_weight": "KL a weight, nats",
    "kl": "KL, nats",
    "contraction": "contraction",
    "conditional_contraction": "conditional contraction",
    "mean_change": "change of the means, prior sds",
    "mean_abs": "|mean|",
    "snr_q50": "|mean| / sd, median",
    "sd_q50": "sd, median",
}
CELL = (3.0, 2.5)  # inches
GAP = 0.3
MARGINS = (0.6, 0.2, 0.55, 1.0)


def evolution(
    source: Any, metric: str | None = None, *, settled: xr.Dataset | None = None, ax: Axes | None = None
) -> Axes:
    """Draw figures of each layer over the epochs: the size of its means, its sd and its KL a weight.

    A dot marks the epoch from which on that quantity had settled, as `wiu_pyro.diagnostics.convergence` has it. Over
    five seeds or more the line is their mean with its interval as a shade; of fewer networks each has its line. Where
    the learning rate fell, the ground is grey: there everything flattens.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.evolution` returned.
    metric : str, optional
        One figure of the table alone.
    settled : Dataset, optional
        What `wiu_pyro.diagnostics.convergence` returned, for the dots; computed where `source` is a posterior.
    ax : Axes, optional
        Where to draw; it is divided into one panel a figure.

    Returns
    -------
    Axes
        Its `child_axes` are the panels, each with one line for each layer (and network).

    Raises
    ------
    DataError
        If the table has no such figure.
    """
    table = source if isinstance(source, xr.Dataset) else diagnostics.evolution(source)
    if settled is None and not isinstance(source, xr.Dataset):
        settled = diagnostics.convergence(source)
    known = [str(name) for name, values in table.data_vars.items() if {"epoch", "layer"} <= set(values.dims)]
    if metric is not None and metric not in known:
        raise DataError(f"The table has no figure '{metric}'. {near_matches(metric, known)}")
    shown = [name for name in QUANTITIES.values() if name in known] if metric is None else [metric]
    left, right, below, above = MARGINS
    width = CELL[0] * (len(shown) + (len(shown) - 1) * GAP)
    fresh = new_axes(ax, (width + left + right, CELL[1] + below + above), margins=MARGINS)
    panels = grid_of_axes(fresh, (1, len(shown)), gap=(0, GAP))
    for panel, name in zip(panels, shown, strict=True):
        _panel(panel, table, name, settled)
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    panels[0].legend(once.values(), once.keys(), frameon=False, fontsize=9, ncols=min(6, len(once)), borderpad=0,
                     loc="lower left", bbox_to_anchor=(-0.02, 1.02), columnspacing=1.2, handlelength=1.4)  # fmt: skip
    title(fresh, "The layers through the training", _detail(table, settled), lift=22)
    note_convergence(fresh, table.attrs, lift=22)
    return fresh


def _detail(table: xr.Dataset, settled: xr.Dataset | None) -> str:
    texts = []
    if settled is not None and settled.attrs["assessed"]:
        texts.append(f"dot: settled within {100 * settled.attrs['tolerance']:g} % from there on")
    if float(table["full_rate_epochs"].max()) < float(table["epoch"].max()):
        texts.append("grey: the learning rate falls")
    if "seeds_kl_per_weight" in table:
        texts.append(f"shade: 95 % over {table.attrs['num_seeds']} seeds")
    return "; ".join(texts)


def _panel(panel: Axes, table: xr.Dataset, name: str, settled: xr.Dataset | None) -> None:
    layers = [str(layer) for layer in table["layer"].values]
    colour, epochs = colours(layers), table["epoch"].values
    quantity = next((key for key, variable in QUANTITIES.items() if variable == name), None)
    for layer in layers:
        one, style = table.sel(layer=layer), {"color": colour[layer], "label": layer}
        if f"seeds_{name}" in table:
            panel.plot(epochs, one[f"seeds_{name}"].values, linewidth=1.6, **style)
            low, high = (one[f"seeds_{name}_{end}"].values for end in ("low", "high"))
            panel.fill_between(epochs, low, high, color=colour[layer], alpha=0.25, linewidth=0)
        else:
            several = chains(one)
            for each in several:
                panel.plot(epochs, each[name].values, linewidth=1.6 if len(several) == 1 else 0.9, **style)
        if settled is not None and quantity is not None:
            _dots(panel, table, settled, (name, quantity, layer))
    shade_falling_rate(panel, table)
    tidy(panel)
    panel.set_xlabel("epoch", fontsize=9.5)
    panel.set_ylabel(LABELS.get(name, name), fontsize=9.5)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.set_xlim(0, float(epochs.max()))


def _dots(panel: Axes, table: xr.Dataset, settled: xr.Dataset, place: tuple[str, str, str]) -> None:
    """Mark where a quantity of a layer settled, on the line of each network, or on their mean."""
    name, quantity, layer = place
    epochs = np.atleast_1d(settled["settled_epoch"].sel(quantity=quantity, layer=layer).values)
    curves = [each[name].sel(layer=layer) for each in chains(table)]
    if f"seeds_{name}" in table:
        epochs = np.array([np.mean(epochs)])
        curves = [table[f"seeds_{name}"].sel(layer=layer)]
    for epoch, curve in zip(epochs, curves, strict=True):
        if np.isfinite(epoch):
            height = float(np.interp(epoch, table["epoch"].values, curve.values))
            panel.plot(epoch, height, "o", color=colours([str(n) for n in table["layer"].values])[layer],
                       markersize=5.5, markeredgecolor="white", zorder=3)  # fmt: skip


def shade_falling_rate(panel: Axes, table: xr.Dataset) -> None:
    """Put grey behind the epochs in which the learning rate fell."""
    full = (
        np.nanmax(table["full_rate_epochs"].values) if "full_rate_epochs" in table else table.attrs["full_rate_epochs"]
    )
    last = float(table["epoch"].max())
    if full < last:
        panel.axvspan(float(full), last, color=GREY, alpha=0.12, linewidth=0, zorder=0)
