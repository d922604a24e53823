"""One layer's weights as a matrix of one quantity."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from wiu_pyro.diagnostics import weight_map
from wiu_pyro.diagnostics.weight_distribution import FLOOR
from wiu_pyro.plots.style import as_table, chains, new_axes, note_convergence, title

__all__ = ["weight_heatmap"]


def weight_heatmap(
    source: Any, layer: str | None = None, quantity: str = "sd_to_prior", *, chain: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw one layer's weight, outputs by inputs, as a heat map.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.weight_map` returned (then its layer and quantity are drawn).
    layer : str, optional
        The first layer with a matrix, if not given.
    quantity : str
        As in `weight_map`.
    chain : int
        Which chain, where there are several: weights of two networks do not correspond.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        With the matrix as its first image and a colour bar beside it.
    """
    table = as_table(source, weight_map, layer=layer, quantity=quantity)
    several = chains(table)
    values = several[chain]["value"].values
    fresh = new_axes(ax, (5.6, 3.5), margins=(0.65, 0.85, 0.5, 0.55))
    corners = (0, _end(table, 1), _end(table, 0), 0)
    picture = fresh.imshow(
        values, aspect="auto", interpolation="nearest", extent=corners, **_colours(values, table.attrs["quantity"])
    )
    below = isinstance(picture.norm, LogNorm) and bool((values < picture.norm.vmin).any())
    bar = fresh.figure.colorbar(picture, ax=fresh, pad=0.02, fraction=0.06, extend="min" if below else "neither")
    bar.set_label(table.attrs["label"], fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5)
    shape, block = [int(n) for n in np.atleast_1d(table.attrs["shape"])], tuple(table.attrs["block"])
    notes = [f"weight of {' × '.join(map(str, shape))}"]
    if tuple(block) != (1, 1):
        notes.append(f"each cell is the mean over {block[0]} × {block[1]} weights")
    if np.isnan(values).any():
        notes.append("blank: held at the point estimate")
    if len(several) > 1:
        notes.append(f"chain {chain} of {len(several)}")
    title(fresh, f"{table.attrs['layer']}: {table.attrs['label']}", "; ".join(notes))
    fresh.set_xlabel("input" if len(shape) == 2 else "input channel and kernel position")
    fresh.set_ylabel("output")
    fresh.tick_params(labelsize=9)
    note_convergence(fresh, table.attrs, lift=14)
    return fresh


def _end(table: Any, axis: int) -> int:
    """Return the size of the weight along the matrix's outputs (0) or inputs (1)."""
    shape = np.atleast_1d(table.attrs["shape"])
    return int(shape[0]) if axis == 0 else int(np.prod(shape[1:]))


def _colours(values: np.ndarray, quantity: str) -> dict[str, Any]:
    if quantity == "mean":
        limit = float(np.abs(values).max()) or 1.0
        return {"cmap": "RdBu_r", "norm": Normalize(-limit, limit)}
    known = values[np.isfinite(values) & (values > 0)]
    if quantity == "signal_to_noise" and known.size and known.min() < known.max():
        return {"cmap": "viridis", "norm": _above_floor(known)}
    return {"cmap": "viridis"}


def _above_floor(known: np.ndarray) -> LogNorm:
    """Return a logarithmic scale that weights of no signal do not stretch over forty decades."""
    low = max(float(np.quantile(known, 0.01)), FLOOR)
    return LogNorm(low, max(float(known.max()), 2 * low), clip=True)
