"""Figures with intervals, put into words: what statements of several diagnostics share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from wiu_pyro.diagnostics.provenance import convergence_note

__all__ = ["Figure", "basis", "closing", "figures", "listed", "percent", "percent_apart"]

MOST_NAMED = 3  # layers by name in one sentence


@dataclass(frozen=True)
class Figure:
    """A figure of one layer with its interval; the ends are NaN where it has none.

    Attributes
    ----------
    layer : str
    value, low, high : float
        With several networks and no interval over seeds: mean, lowest and highest end of the networks' own intervals.
    """

    layer: str
    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def text(self, written: Callable[[float], str]) -> str:
        """Write the figure, and its interval where it has one: ``0.4 (0.3 to 0.5)``; shares so that its ends differ."""
        written = percent_apart(self.low, self.high) if written is percent and self.has_interval else written
        ends = f" ({written(self.low)} to {written(self.high)})" if self.has_interval else ""
        return f"{written(self.value)}{ends}"


def figures(table: xr.Dataset, name: str) -> list[Figure]:
    """Return a figure of each layer that has a value: over seeds where the table has that, else within the networks.

    Parameters
    ----------
    table : Dataset
        With ``name``, ``name_low``, ``name_high`` and perhaps the same with ``seeds_`` before, over ``layer``.
    name : str

    Returns
    -------
    list of Figure
    """
    if f"seeds_{name}" in table:
        value, low, high = (table[f"seeds_{name}{end}"] for end in ("", "_low", "_high"))
    else:
        value, low, high = (table[f"{name}{end}"] for end in ("", "_low", "_high"))
        if "chain" in value.dims:
            value = value.mean("chain")
            low, high = low.min("chain", skipna=False), high.max("chain", skipna=False)
    rows = zip(table["layer"].values.tolist(), value.values, low.values, high.values, strict=True)
    return [Figure(str(layer), *map(float, ends)) for layer, *ends in rows if np.isfinite(ends[0])]


def basis(table: xr.Dataset) -> str:
    """Return what the intervals of a table rest on, as a sentence.

    Parameters
    ----------
    table : Dataset
        With the attribute ``num_seeds``.

    Returns
    -------
    str
    """
    num = int(table.attrs["num_seeds"])
    if any(str(name).startswith("seeds_") for name in table.data_vars):
        return f"In brackets: 95 % intervals over {num} seeds, together over the layers."
    inside = "within one network" if num == 1 else f"within each of {num} networks"
    return (
        f"In brackets: 95 % intervals {inside}, its outputs and inputs resampled, together over the layers; whether "
        "another seed would show the same they do not say."
    )


def closing(table: xr.Dataset) -> list[str]:
    """Return what must be said of the fit: an sd that is about conditional, and no convergence."""
    found = []
    if table.attrs.get("factorised"):
        found.append("The posterior factorises over weights, so its sd is about the conditional one.")
    note = convergence_note(table.attrs)
    if note:
        words = {"not converged": "The fit had not converged"}
        opening = next((text for start, text in words.items() if note.startswith(start)), "")
        found.append(
            f"{opening}{note.removeprefix('not converged')}: these figures describe a stage of its training."
            if opening
            else "Whether the fit had converged was not assessed."
        )
    return found


def listed(texts: Sequence[str]) -> str:
    """Write up to three things in a row, and how many more there are."""
    more = len(texts) - MOST_NAMED
    shown = ", ".join(texts[:MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def percent_apart(low: float, high: float) -> Callable[[float], str]:
    """Return how to write shares in percent so that the ends of an interval read apart, by up to two digits more.

    Parameters
    ----------
    low, high : float

    Returns
    -------
    callable
        From a share to text.

    Examples
    --------
    >>> [percent_apart(0.019, 0.0212)(end) for end in (0.019, 0.02, 0.0212)]
    ['1.9 %', '2.0 %', '2.1 %']
    """
    for digits in (None, 1, 2):
        written = partial(percent, digits=digits)
        if written(low) != written(high):
            return written
    return percent


def percent(value: float, digits: int | None = None) -> str:
    """Write a share in percent, with a digit behind the point only where all or nothing is near.

    Parameters
    ----------
    value : float
    digits : int, optional
        Behind the point, whatever the value.

    Returns
    -------
    str

    Examples
    --------
    >>> [percent(share) for share in (0.4321, 0.9964, 1.0, 0.0)]
    ['43 %', '99.6 %', '100 %', '0 %']
    """
    near_end = 0.0005 <= value < 0.01 or 0.99 < value < 0.9995
    digits = int(near_end) if digits is None else digits
    return f"{100 * value:.{digits}f} %"
