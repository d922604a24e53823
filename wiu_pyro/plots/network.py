"""The network itself: its layers as boxes in the order of the data, coloured by one figure of the layer table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.plots.style import GREY, new_axes, note_convergence, title

__all__ = ["network"]

DEFAULT = "conditional_contraction"
LABELS = {
    DEFAULT: "conditional contraction",
    "contraction": "contraction",
    "sd_to_prior": "sd / prior sd, median",
    "conditional_sd_to_prior": "conditional sd / prior sd, median",
    "snr_q50": "|mean| / sd, median",
    "kl": "KL from the prior, nats",
    "kl_per_weight": "KL from the prior, nats a weight",
    "kl_share": "share of the KL",
    "effective_parameters": "effective parameters",
    "effective_share": "share of the effective parameters",
    "sd_q50": "sd, median, units of the weight",
}
MAP = "viridis"  # even in lightness, so that readers with any colour vision tell its ends apart
HELD = "#f1f1f1"  # a layer at its point estimate
DECADES = 30  # ratio of the largest to the smallest value from which the colours are logarithmic
NARROWEST = 0.1  # of the widest box
BOX, GAP = 3.0, 0.12  # inches; widest box, from box to text
CHARACTER = 0.082  # inches a character of the texts takes at most
ROWS = (0.42, 0.33)  # inches a layer takes, of up to MANY layers and of more
MANY = 10
MARGINS = (0.1, 0.1, 0.66, 0.62)


@dataclass(frozen=True)
class _Drawn:
    """One figure a layer, what it is called, and its range over the networks."""

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    label: str
    norm: Normalize


def network(source: Any, metric: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the layers as boxes one below the other, first to last, coloured by one figure of the layer table.

    A box is as wide as the logarithm of the layer's number of weights, counted from one weight; at its left stands the
    layer's name, at its right the figure, the layer's type and its number of weights. Of several networks the colour
    is their mean, and their range stands beside it. Colours begin at zero, or are logarithmic where the figures span
    more than a factor of 30. A layer at its point estimate is grey. Layers without weights (activations, pooling) and
    the links that skip layers are not in the file, so they are not drawn.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.layer_uncertainty` returned; the types of the layers are then those
        of a coordinate ``module_type``, if it has one.
    metric : str, optional
        A column of the layer table; if not given, conditional contraction, of a posterior without it contraction.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Its patches are the boxes, in the order of the layers; its one child holds the colour bar.

    Raises
    ------
    DataError
        If the layer table has no such column.
    """
    table = source if isinstance(source, xr.Dataset) else _with_types(source)
    drawn = _figures(table, metric)
    names = [str(name) for name in table["layer"].values]
    details = _details(table)
    widest = max(map(len, names)) * CHARACTER, max(map(len, details)) * CHARACTER
    row = ROWS[len(names) > MANY]
    size = (sum(widest) + BOX + 2 * GAP + sum(MARGINS[:2]), row * len(names) + sum(MARGINS[2:]))
    fresh = new_axes(ax, size, margins=MARGINS)
    fresh.set_axis_off()
    fresh.set_xlim(-GAP - widest[0], BOX + GAP + widest[1])
    fresh.set_ylim(len(names) - 0.5, -0.5)
    _boxes(fresh, table["num_weights"].values, drawn)
    for place, (name, detail) in enumerate(zip(names, details, strict=True)):
        fresh.text(-GAP, place, name, ha="right", va="center", fontsize=9.5)
        fresh.text(BOX + GAP, place - 0.01, _written(drawn, place), va="bottom", fontsize=9.5, fontweight="bold")
        fresh.text(BOX + GAP, place + 0.01, detail, va="top", fontsize=8.5, color=GREY)
    _colour_bar(fresh, drawn, row * len(names))
    title(fresh, "The network and its uncertainty", "width: number of weights, logarithmic")
    note_convergence(fresh, table.attrs)
    return fresh


def _with_types(idata: Any) -> xr.Dataset:
    table = diagnostics.layer_uncertainty(idata)
    about = schema.dataset(idata, "layers")
    if "module_type" not in about:
        return table
    return table.assign_coords(module_type=about["module_type"].sel(layer=table["layer"]))


def _figures(table: xr.Dataset, metric: str | None) -> _Drawn:
    """Return the figures to colour by, averaged over the networks."""
    known = [
        str(name) for name, column in table.data_vars.items() if "layer" in column.dims and column.dtype.kind in "fiu"
    ]
    if metric is not None and metric not in known:
        raise DataError(f"The layer table has no column '{metric}'. {near_matches(metric, known)}")
    name = metric or (DEFAULT if DEFAULT in known else "contraction")
    column = table[name].astype(float)
    if metric is None and name == DEFAULT:
        column = column.fillna(table["contraction"])  # of a factorised layer among others the two are one
    rows = np.atleast_2d(column.transpose(..., "layer").values)
    held = np.isnan(rows).all(axis=0)
    filled = np.where(held, 0.0, rows)
    mean, low, high = (np.where(held, np.nan, pick(filled, axis=0)) for pick in (np.nanmean, np.nanmin, np.nanmax))
    return _Drawn(mean, low, high, LABELS.get(name, name.replace("_", " ")), _scale(mean, name))


def _scale(values: np.ndarray, name: str) -> Normalize:
    """Return colours from zero to the largest value, or logarithmic ones of values that span decades."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        return Normalize(0, 1)
    low, high = float(seen.min()), float(seen.max())
    if low > 0 and high / low > DECADES and "contraction" not in name:
        return LogNorm(low, high)
    return Normalize(min(low, 0.0), high if high > min(low, 0.0) else 1.0)


def _details(table: xr.Dataset) -> list[str]:
    types = table["module_type"].values.tolist() if "module_type" in table.variables else []
    counts = [f"{count:,} weight{'s' * (count != 1)}" for count in table["num_weights"].values.tolist()]
    return [f"{kind} · {count}" for kind, count in zip(types, counts, strict=True)] if types else counts


def _written(drawn: _Drawn, place: int) -> str:
    if not np.isfinite(drawn.values[place]):
        return "point estimate"
    mean, low, high = (_number(values[place]) for values in (drawn.values, drawn.low, drawn.high))
    return f"{mean} ({low} to {high})" if drawn.high[place] > drawn.low[place] else mean


def _number(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def _boxes(ax: Axes, counts: np.ndarray, drawn: _Drawn) -> None:
    """Draw one box a layer around a common middle, and the way of the data from box to box."""
    logs = np.log10(np.maximum(counts, 1))
    widths = BOX * np.maximum(logs / max(float(logs.max()), 1e-9), NARROWEST)
    height = 0.62
    for place in range(len(counts) - 1):
        arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
        ends = (BOX / 2, place + 1 - height / 2), (BOX / 2, place + height / 2)
        ax.annotate("", *ends, arrowprops=arrow)
    for place, (width, value) in enumerate(zip(widths, drawn.values, strict=True)):
        known = np.isfinite(value)
        box = FancyBboxPatch(
            ((BOX - width) / 2, place - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=plt.get_cmap(MAP)(drawn.norm(value)) if known else HELD,
            edgecolor=GREY,
            linewidth=0.7,
            linestyle="-" if known else "--",
        )
        ax.add_patch(box)


def _colour_bar(ax: Axes, drawn: _Drawn, height: float) -> None:
    """Draw the colours' scale under the boxes; `height` of the axes in inches."""
    left, right = ax.get_xlim()
    place = (-left / (right - left), -0.24 / height, BOX / (right - left), 0.11 / height)
    logarithmic = isinstance(drawn.norm, LogNorm)
    bar = ax.figure.colorbar(
        ScalarMappable(drawn.norm, MAP),
        cax=ax.inset_axes(place),
        orientation="horizontal",
        ticks=LogLocator(numticks=5) if logarithmic else MaxNLocator(4),
    )
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=GREY)
    bar.set_label(drawn.label, fontsize=9)
