"""Which layers the variance of a network's predictions comes from."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.plots.style import GREY, colours, new_axes, note_convergence, tidy

__all__ = ["layer_effects"]

TITLES = {"probability": "of the class probabilities", "output": "of the outputs"}
OUTER = {"first_order": ("<", "first order"), "total": (">", "total")}
ROW = 0.5  # inches
NEAR = 0.02  # shares that differ by less are one mark


def layer_effects(table: xr.Dataset, response: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Draw each layer's share of the variance: its Shapley effect, between first-order and total effect.

    The disc is the Shapley effect with its interval. The bar goes from the first-order effect (triangle to the left) to
    the total effect (triangle to the right): its length is what the layer does together with others. Of correlated
    layers the first-order effect may be the larger one. Where all three are one number there is no bar.

    Parameters
    ----------
    table : Dataset
        What `wiu_pyro.interventions.stochastic_layers` returned, or the same from a file.
    response : {"probability", "output"}, optional
        One of them; both, if not given.
    ax : Axes, optional
        Where to draw; needs one `response`.

    Returns
    -------
    Figure or Axes
        A figure with a panel for each response, or the axes of the one.

    Raises
    ------
    SchemaError
        If the table holds no effects.
    DataError
        If the response is unknown, or `ax` is given without one.
    """
    if not isinstance(table, xr.Dataset) or "effect_share" not in table:
        reason = getattr(table, "attrs", {}).get("effects_reason", "")
        raise SchemaError(
            f"A table with 'effect_share' is needed, but there is none{f' ({reason})' if reason else ''}. Compute it "
            "with wiu_pyro.interventions.stochastic_layers(fit, data, effect_draws=50)."
        )
    known = [str(name) for name in table["response"].values]
    if response is None and ax is not None:
        raise DataError(f"One pair of axes holds one response, but none was named. Pass response='{known[0]}'.")
    if response is not None and response not in known:
        raise DataError(f"Unknown response '{response}'. {near_matches(response, known)}")
    height = 1.35 + ROW * table.sizes["layer"]
    if response is not None:
        fresh = new_axes(ax, (5, height))
        _panel(fresh, table.sel(response=response), response)
        _annotate(fresh, table)
        note_convergence(fresh, table.attrs, lift=26)
        return fresh
    size = (3.6 * len(known) + 1, height)
    figure, axes = plt.subplots(1, len(known), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for panel, name in zip(axes[0], known, strict=True):
        _panel(panel, table.sel(response=name), name)
    for panel in axes[0][1:]:
        panel.tick_params(axis="y", labelleft=False)
    _annotate(axes[0][0], table)
    note_convergence(axes[0][-1], table.attrs, lift=16)
    handles, labels = axes[0][0].get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    axes[0][-1].legend(kept.values(), kept.keys(), frameon=False, fontsize=8.5, ncols=3, loc="lower right",
                       bbox_to_anchor=(1.02, 1.0), handletextpad=0.1, columnspacing=0.8, borderpad=0.1)  # fmt: skip
    return figure


def _panel(ax: Axes, one: xr.Dataset, response: str) -> None:
    layers = [str(layer) for layer in one["layer"].values]
    rows, colour = np.arange(len(layers))[::-1], colours(layers)
    share = {name: one["effect_share"].sel(effect=name).values for name in ("first_order", "total", "shapley")}
    low, high = (one[f"effect_{end}"].sel(effect="shapley").values for end in ("low", "high"))
    apart = np.abs(share["total"] - share["first_order"]) > NEAR
    for place, layer in enumerate(layers):
        row, own = rows[place], colour[layer]
        ax.axhline(row, color="#eeeeee", linewidth=0.8, zorder=0)
        if apart[place]:
            ends = [share["first_order"][place], share["total"][place]]
            ax.plot(ends, [row, row], color=own, alpha=0.3, linewidth=7, solid_capstyle="butt", label="_bar")
        ax.plot([low[place], high[place]], [row, row], color=own, linewidth=2, label="_interval")
        ax.plot(share["shapley"][place], row, "o", color=own, markersize=6, zorder=4, label="_shapley")
    for name, (marker, _) in OUTER.items():
        ax.plot(share[name][apart], rows[apart], marker, color=GREY, markersize=5, linestyle="none", label=f"_{name}")
    for name, (marker, label) in {"shapley": ("o", "Shapley"), **OUTER}.items():
        if name == "shapley" or apart.any():
            ax.plot([], [], marker, color=GREY, markersize=5, label=label)
    tidy(ax)
    ax.spines["left"].set_visible(False)
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    ax.set_yticks(rows, layers)
    ax.set_ylim(-0.6, len(layers) - 0.4)
    known = np.concatenate([*share.values(), low, high])
    ax.set_xlim(min(0.0, np.nanmin(known, initial=0.0)) - 0.02, max(1.0, np.nanmax(known, initial=0.0)) + 0.02)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"share of the variance\n{TITLES[response]}", fontsize=9.5)


def _annotate(ax: Axes, table: xr.Dataset) -> None:
    """Write what the intervals are above the first panel."""
    level, seeds = f"{100 * table.attrs['level']:.0f} %", table.attrs["effect_interval"] == "seeds"
    over = f"{table.attrs['num_seeds']} seeds" if seeds else f"{table.attrs['effect_draws']} pairs of draws"
    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    text = f"{level} intervals over {over},\nsimultaneous over the layers"
    ax.annotate(text, (0, 1), (0, 5), fontsize=8.5, color=GREY, **place).set_in_layout(False)
