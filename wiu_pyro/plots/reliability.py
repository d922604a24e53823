"""Confidence against accuracy, with the number of images behind each bar."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from wiu_pyro.diagnostics import predictive
from wiu_pyro.errors import SchemaError
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["reliability"]

MARGINS = (0.62, 0.18, 1.43, 0.57)  # room for the counts below


def reliability(source: Any, *, chain: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the reliability diagram: how often images of each confidence are classified right.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior of a classifier, or what `wiu_pyro.diagnostics.predictive` returned.
    chain : int
        Which chain, where there are several.
    ax : Axes, optional
        Where to draw; the counts take a strip below it, its child axes.

    Returns
    -------
    Axes
        Bars at the accuracy of each bin that holds images; the counts stand below, on a logarithmic axis.

    Raises
    ------
    SchemaError
        If the predictions are not of a classifier.
    """
    table = chains(as_table(source, predictive))[chain]
    if "bin_count" not in table:
        raise SchemaError(
            "A classifier's predictions are needed for a reliability diagram, but these are a regression's."
        )
    fresh = new_axes(ax, (4.4, 4.4), margins=MARGINS)
    filled = np.flatnonzero(table["bin_count"].values)
    one = table.isel(bin=filled)
    left, width = one["bin_left"].values, (one["bin_right"] - one["bin_left"]).values
    bars: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 1}
    fresh.bar(left, one["bin_accuracy"].values, width, color=COLOURS[5], label="accuracy", **bars)
    fresh.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    fresh.plot(
        one["bin_confidence"].values, one["bin_accuracy"].values, "o", color=COLOURS[0], markersize=4.5, label="mean"
    )
    _counts(fresh, one, bars | {"width": width})
    fresh.set_xlim(0, 1)
    fresh.set_ylim(0, 1)
    fresh.set_ylabel("share classified right")
    fresh.tick_params(labelbottom=False)
    tidy(fresh)
    title(fresh, f"Reliability, {table.attrs.get('approximation', '')}".rstrip(", "), f"ECE {float(table['ece']):.3f}")
    note_convergence(fresh, table.attrs)
    return fresh


def _counts(ax: Axes, table: xr.Dataset, bars: dict[str, Any]) -> None:
    """Draw the number of images in each bin below the axes, on a logarithmic scale that ends at the largest."""
    counts = ax.inset_axes((0, -0.34, 1, 0.26), sharex=ax)
    number = table["bin_count"].values
    counts.bar(table["bin_left"].values, number, color=GREY, **bars)
    counts.set_yscale("log")
    counts.set_ylim(0.7, 1.5 * number.max())
    counts.yaxis.set_major_locator(LogLocator(numticks=4))
    counts.minorticks_off()
    counts.set_ylabel("images", fontsize=9)
    counts.set_xlabel("confidence (largest class probability)")
    counts.tick_params(labelbottom=True)
    tidy(counts)
