"""The images a classifier that may decline would decline first."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from wiu_pyro import schema
from wiu_pyro.diagnostics import predictive
from wiu_pyro.errors import SchemaError
from wiu_pyro.plots.style import COLOURS, GREY, chains, grid_of_axes, new_axes, note_convergence, title

__all__ = ["declined_images"]

COLUMNS = 6
RIGHT, WRONG = COLOURS[0], COLOURS[4]


def declined_images(idata: Any, *, num_images: int = 12, chain: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the images of the highest predictive entropy, with label, prediction and its probability interval.

    Parameters
    ----------
    idata : InferenceData or DataTree
        A posterior of a classifier, exported with its images.
    num_images : int
        How many, at most.
    chain : int
        Which chain, where there are several.
    ax : Axes, optional
        Where to draw; it is divided into one panel an image.

    Returns
    -------
    Axes
        Its `child_axes` are the panels, most uncertain first.

    Raises
    ------
    SchemaError
        If the file holds no images, or the predictions are not of a classifier.
    """
    images = _images(idata)
    table = chains(predictive(idata, num_declined=num_images))[chain]
    if "declined" not in table:
        raise SchemaError("A classifier's predictions are needed to decline images, but these are a regression's.")
    rows = -(-table.sizes["rank"] // COLUMNS)
    fresh = new_axes(ax, (9, 0.9 + 1.8 * rows), margins=(0.09, 0.09, 0.25, 0.75))
    panels = grid_of_axes(fresh, (rows, COLUMNS), gap=(0.34, 0.12))
    names = schema.dataset(idata, "observed_data").attrs.get("class_names")
    for place, panel in enumerate(panels):
        panel.set_axis_off()
        if place < table.sizes["rank"]:
            _draw(panel, images, table.isel(rank=place), names)
    title(fresh, f"Declined first by {table.attrs.get('approximation', 'the posterior')}", _legend(table), lift=15)
    note_convergence(fresh, table.attrs, lift=15)
    return fresh


def _images(idata: Any) -> xr.DataArray:
    data = schema.dataset(idata, "constant_data") if "constant_data" in schema.groups(idata) else xr.Dataset()
    if "x" not in data or data["x"].ndim != 4:
        raise SchemaError(
            "Images (variable 'x' of group 'constant_data', channel by height by width) are needed, but the file holds "
            f"{dict(data.sizes) or 'none'}. Export with the images; they are left out above 64 MB."
        )
    return data["x"]


def _draw(panel: Axes, images: xr.DataArray, row: xr.Dataset, names: Any) -> None:
    pixels = images.sel(obs_id=int(row["declined"])).values
    # (channel, height, width) -> what imshow takes; images on another scale are stretched to theirs
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    shown = np.moveaxis((pixels - low) / (high - low), 0, -1) if len(pixels) == 3 else pixels[0]
    panel.imshow(shown, cmap="Greys_r", interpolation="nearest")
    label, predicted = int(row["declined_label"]), int(row["declined_predicted"])
    text = f"{_name(predicted, names)}" + ("" if label == predicted else f", is {_name(label, names)}")
    panel.set_title(text, fontsize=9.5, pad=3, color=RIGHT if label == predicted else WRONG)
    interval = f"{float(row['declined_probability']):.2f}"
    if "declined_lower" in row:
        interval += f" [{float(row['declined_lower']):.2f}, {float(row['declined_upper']):.2f}]"
    panel.text(0.5, -0.04, interval, transform=panel.transAxes, ha="center", va="top", fontsize=8, color=GREY)


def _name(label: int, names: Any) -> str:
    return str(np.atleast_1d(names)[label]) if names is not None else str(label)


def _legend(table: xr.Dataset) -> str:
    interval = f", {100 * float(table.attrs['interval']):g} % interval" if "declined_lower" in table else ""
    return f"predicted class (and the right one where it is another); its probability{interval}"
