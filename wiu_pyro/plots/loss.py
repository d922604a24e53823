"""The loss by epoch, with the tail on which convergence is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wiu_pyro.diagnostics import training_loss
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["loss"]

LOG_FROM = 20


def loss(source: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the loss by epoch; the last tenth, on which convergence is judged, is shaded.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior, or what `wiu_pyro.diagnostics.training_loss` returned.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        One line a chain. The axis is logarithmic where the loss is positive and falls by a factor of 20 or more.
    """
    table = as_table(source, training_loss)
    fresh = new_axes(ax, (6, 3.2))
    several = chains(table)
    for number, one in enumerate(several):
        label = f"chain {number}" if len(several) > 1 else "loss"
        colour = COLOURS[number % len(COLOURS)]
        fresh.plot(one["epoch"].values + 1, one["loss"].values, color=colour, linewidth=1.6, label=label)
    values = table["loss"].values
    if np.isfinite(values).all() and values.min() > 0 and values.max() / values.min() >= LOG_FROM:
        fresh.set_yscale("log")
    start, last = int(table["tail_start"]) + 1, int(table["epoch"].values[-1]) + 1
    fresh.axvspan(start, last, color=GREY, alpha=0.15, linewidth=0)
    fresh.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(fresh)
    fresh.set_xlabel("epoch")
    fresh.set_ylabel("loss = −ELBO, nats")
    changes = np.atleast_1d(table["tail_change"].values)
    if np.isfinite(changes).all():
        worst = float(changes[np.abs(changes).argmax()])
        word = "fell" if worst >= 0 else "rose"
        title(fresh, "Loss", f"over the shaded epochs it {word} by {abs(worst):.2%}")
    else:
        title(fresh, "Loss")
    if len(several) > 1:
        fresh.legend(frameon=False, fontsize=8)
    note_convergence(fresh, table.attrs)
    return fresh
