"""The loss by epoch, with the stretches on which convergence is judged and what the fit said of it."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wiu_pyro.diagnostics import training_loss
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["loss"]

LOG_FROM = 20
LINE = 66  # letters of the detail that fit above the axes


def loss(source: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the loss by epoch, with its means over the last tenth and the tenth before, and the recorded verdict.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.training_loss` returned.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        One line a chain. The axis is logarithmic where the loss is positive and falls by a factor of 20 or more. The
        last tenth of the epochs is shaded, the tenth before lightly, each with its mean; the sentence above is the one
        the fit recorded.
    """
    table = as_table(source, training_loss)
    fresh = new_axes(ax, (4.8, 3.3))
    several = chains(table)
    for number, one in enumerate(several):
        label = f"chain {number}" if len(several) > 1 else "loss"
        colour = COLOURS[number % len(COLOURS)]
        fresh.plot(one["epoch"].values + 1, one["loss"].values, color=colour, linewidth=1.6, label=label)
    values = table["loss"].values
    if np.isfinite(values).all() and values.min() > 0 and values.max() / values.min() >= LOG_FROM:
        fresh.set_yscale("log")
    _stretches(fresh, several)
    fresh.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(fresh)
    fresh.set_xlabel("epoch")
    fresh.set_ylabel(f"loss = {str(table.attrs.get('objective', '-ELBO')).replace('-', '−', 1)}, nats")
    said = str(table.attrs.get("convergence_detail", "")).strip()
    lines = textwrap.wrap(said.replace(" %", "\u00a0%"), LINE)
    title(fresh, "Loss", "\n".join(lines))
    if len(several) > 1:
        fresh.legend(frameon=False, fontsize=9)
    note_convergence(fresh, table.attrs, lift=14 + 11 * (len(lines) - 1) if lines else 0)
    return fresh


def _stretches(ax: Axes, several: list[xr.Dataset]) -> None:
    """Shade the last tenth of the epochs and the tenth before, and draw the mean loss over each."""
    one = several[0]
    before, start = int(one["before_start"]) + 1, int(one["tail_start"]) + 1
    last = int(one["epoch"].values[-1]) + 1
    ends = {"before": (before - 0.5, start - 0.5, 0.07), "tail": (start - 0.5, last + 0.5, 0.16)}
    for name, (left, right, alpha) in ends.items():
        ax.axvspan(left, right, color=GREY, alpha=alpha, linewidth=0)
        for chain in several:
            ax.plot([left, right], [float(chain[f"{name}_mean"])] * 2, color="black", linewidth=1.2)
