"""The first layer's uncertainty on the image it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from wiu_pyro import diagnostics
from wiu_pyro.plots.style import as_table, chains, grid_of_axes, new_axes, note_convergence

__all__ = ["input_map"]

CHANNELS = {1: ("",), 3: (", red", ", green", ", blue")}


def input_map(source: Any, *, chain: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the first layer's sd / prior sd at each pixel, beside how much the pixel varies over the images.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.input_map` returned.
    chain : int
        Which chain, where there are several.
    ax : Axes, optional
        Where to draw; it is divided into one panel a channel, and one of the images' own variation.

    Returns
    -------
    Axes
        Its `child_axes` are the panels.
    """
    table = as_table(source, diagnostics.input_map)
    one = chains(table)[chain]
    maps = _maps(one)
    fresh = new_axes(ax, (3.6 * len(maps), 3.3), margins=(0.4, 0.75, 0.35, 0.5))
    panels = grid_of_axes(fresh, (1, len(maps)), gap=(0, 0.38))
    for panel, (text, values, colours) in zip(panels, maps, strict=True):
        picture = panel.imshow(values, interpolation="nearest", **colours)
        panel.set_title(text, loc="left", fontsize=10)
        panel.set_xticks([0, values.shape[1] - 1])
        panel.set_yticks([0, values.shape[0] - 1])
        panel.set_xlabel("pixel column", fontsize=9, labelpad=-6)
        panel.set_ylabel("pixel row", fontsize=9, labelpad=-6)
        panel.tick_params(length=0, labelsize=9)
        panel.spines[:].set_visible(False)
        bar = fresh.figure.colorbar(picture, cax=panel.inset_axes((1.03, 0, 0.05, 1)))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8.5)
    note_convergence(fresh, table.attrs, lift=16)
    return fresh


def _maps(table: xr.Dataset) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return title, pixels and colours of each panel."""
    ratio = table["sd_to_prior"].values
    names = CHANNELS.get(len(ratio), tuple(f", channel {i}" for i in range(len(ratio))))
    scale = {"cmap": "viridis", "vmin": float(np.nanmin(ratio)), "vmax": max(1.0, float(np.nanmax(ratio)))}
    layer = table.attrs["layer"]
    maps = [(f"{layer}: sd / prior sd{name}", image, scale) for name, image in zip(names, ratio, strict=True)]
    if "pixel_sd" in table and len(ratio) == 1:
        maps.append(("sd of the pixel over the images", table["pixel_sd"].values[0], {"cmap": "Greys_r"}))
    return maps
