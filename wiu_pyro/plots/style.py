"""What all figures share: colours of layers and posteriors, clean axes, and the note beside an unconverged fit.

The colours are those of Okabe and Ito (2008), which readers with any colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes

__all__ = [
    "COLOURS",
    "GREY",
    "MARKERS",
    "as_table",
    "chains",
    "colours",
    "grid_of_axes",
    "new_axes",
    "note_convergence",
    "tidy",
    "title",
]

GREY = "#6f6f6f"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def colours(names: Sequence[str]) -> dict[str, Any]:
    """Return one colour for each name, by its place: the same layer has the same colour in every figure.

    Parameters
    ----------
    names : sequence of str
        All layers (or posteriors), in their order.

    Returns
    -------
    dict of str to colour
        Okabe and Ito's for up to seven names; beyond, steps of a colour map from dark to light.
    """
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    return dict(zip(names, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names))), strict=True))


def as_table(source: Any, diagnostic: Callable[..., xr.Dataset], **options: Any) -> xr.Dataset:
    """Return `source` if it is a diagnostic's table already, else what `diagnostic` makes of it."""
    return source if isinstance(source, xr.Dataset) else diagnostic(source, **options)


def chains(table: xr.Dataset) -> list[xr.Dataset]:
    """Return the table of each chain; the table itself where it has no chains."""
    return [table.isel(chain=i) for i in range(table.sizes["chain"])] if "chain" in table.dims else [table]


def new_axes(
    ax: Axes | None, size: tuple[float, float], *, margins: tuple[float, float, float, float] | None = None
) -> Axes:
    """Return the axes given, or those of a new figure.

    Parameters
    ----------
    ax : Axes or None
    size : (float, float)
        Width and height in inches.
    margins : (float, float, float, float), optional
        Left, right, below and above, in inches; quicker than matplotlib's search for them, which is made without.

    Returns
    -------
    Axes
    """
    if ax is not None:
        return ax
    if margins is None:
        return plt.subplots(figsize=size, layout="constrained")[1]
    (width, height), (left, right, below, above) = size, margins
    box = {"left": left / width, "right": 1 - right / width, "bottom": below / height, "top": 1 - above / height}
    return plt.subplots(figsize=size, gridspec_kw=box)[1]


def grid_of_axes(ax: Axes, shape: tuple[int, int], *, gap: tuple[float, float] = (0.1, 0.1)) -> list[Axes]:
    """Divide axes into rows and columns of smaller ones, row by row; `gap` in shares of a cell."""
    rows, columns = shape
    ax.set_axis_off()
    height, width = 1 / (rows + (rows - 1) * gap[0]), 1 / (columns + (columns - 1) * gap[1])
    cells = []
    for row in range(rows):
        for column in range(columns):
            left, top = column * width * (1 + gap[1]), 1 - row * height * (1 + gap[0])
            cells.append(ax.inset_axes((left, top - height, width, height)))
    return cells


def tidy(ax: Axes) -> None:
    """Take away what carries no information: the frame's upper and right side, heavy ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelsize=9)
    ax.set_axisbelow(True)


def title(ax: Axes, text: str, detail: str = "", *, lift: int = 0) -> None:
    """Write a title on the left, with smaller grey lines under it, `lift` points higher than usual."""
    if detail:
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(detail, (0, 1), (0, 5 + lift), fontsize=8.5, color=GREY, **place)
    ax.set_title(text, loc="left", fontsize=11, pad=lift + (19 + 11 * detail.count("\n") if detail else 7))


def note_convergence(ax: Axes, attrs: dict[str, Any], *, lift: int = 0) -> None:
    """Write "not converged" in grey at the upper right of a figure of a fit that had not converged."""
    if str(attrs.get("converged", "")) == "no":
        ax.annotate(
            "not converged",
            (1, 1),
            (0, 5 + lift),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            fontsize=9,
            style="italic",
            color=GREY,
        )
