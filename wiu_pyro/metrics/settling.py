"""From which record on a curve has settled, and where early stopping would have stopped a loss.

A curve has settled from the record from which on, averaged over a tenth of the records around each, it stays within a
band around its end, provided that it does so for at least the last fifth. A curve that still moves by more than the
band in that time has not settled; one that creeps more slowly has, as far as the records can tell. Noise from record to
record of up to half the band hides a settled curve of 70 records in fewer than 1 of 100 cases.

References
----------
Prechelt (1998), Early Stopping - But When?, criterion UP (stop after successive epochs without an improvement).
Wu (1986), Jackknife, Bootstrap and Other Resampling Methods in Regression Analysis (the wild bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["FEWEST_RECORDS", "Stop", "distance_from_end", "early_stop", "noisy_copies", "settled_from"]

FEWEST_RECORDS = 10  # below which nothing is said
WINDOW = 0.1  # of the records, averaged over
LAST = 0.2  # of the records, over which a settled curve must have stayed within its band


def _curves(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1 or array.shape[-1] < FEWEST_RECORDS:
        raise DataError(
            f"Curves of at least {FEWEST_RECORDS} records on the last axis are needed, got shape {array.shape}. "
            "Train longer, or keep records more often."
        )
    return array


def _window(num: int) -> int:
    return max(1, int(WINDOW * num))


def _smooth(curves: np.ndarray) -> np.ndarray:
    """Return the mean over the window around each record, over what there is of it at the ends."""
    num = curves.shape[-1]
    half = _window(num) // 2
    padded = np.concatenate([np.zeros((*curves.shape[:-1], 1)), np.cumsum(curves, axis=-1)], axis=-1)
    low, high = np.maximum(np.arange(num) - half, 0), np.minimum(np.arange(num) + half, num - 1) + 1
    return (padded[..., high] - padded[..., low]) / (high - low)


def distance_from_end(values: ArrayLike, *, tolerance: float, floor: float = 0.0) -> np.ndarray:
    r"""Return how far a curve is from its end at each record, in units of the band around it.

    The end is the mean over the last tenth of the records; the band is `tolerance` times its size, at least `floor`.

    Parameters
    ----------
    values : array_like, shape (..., records)
        At least 10 records.
    tolerance : float
        Relative, > 0.
    floor : float
        In the unit of the values.

    Returns
    -------
    ndarray, shape (..., records)
        At most 1 within the band; 0 where the band has no width and the curve is at its end.

    Raises
    ------
    DataError
        If there are fewer than 10 records, or `tolerance` is not positive.

    Examples
    --------
    >>> distance_from_end([2.0] + 9 * [1.0], tolerance=0.5).tolist()
    [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    curves = _curves(values)
    if not tolerance > 0:
        raise DataError(f"A tolerance above 0 is needed, got {tolerance}. Use 0.05.")
    end = curves[..., -_window(curves.shape[-1]) :].mean(axis=-1, keepdims=True)
    away, band = np.abs(_smooth(curves) - end), np.maximum(tolerance * np.abs(end), floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(away == 0, 0.0, away / band)


def settled_from(values: ArrayLike, *, tolerance: float, floor: float = 0.0) -> np.ndarray:
    """Return the place of the record from which on each curve has settled.

    Parameters
    ----------
    values : array_like, shape (..., records)
        At least 10 records.
    tolerance : float
        Relative, > 0.
    floor : float
        Least half width of the band, in the unit of the values.

    Returns
    -------
    ndarray, shape (...)
        Counted from 0; ``inf`` where the curve had not settled by its last fifth, NaN where it is not finite.

    Raises
    ------
    DataError
        As `distance_from_end`.

    Examples
    --------
    >>> settled_from([[5.0, 3.0] + 18 * [1.0], list(range(20))], tolerance=0.05).tolist()
    [3.0, inf]
    """
    curves = _curves(values)
    within = distance_from_end(curves, tolerance=tolerance, floor=floor) <= 1
    num = curves.shape[-1]
    lasting = np.cumprod(within[..., ::-1], axis=-1).sum(axis=-1)  # records at the end that are all within
    place = np.where(lasting >= max(2, LAST * num), (num - lasting).astype(np.float64), np.inf)
    return np.where(np.isfinite(curves).all(axis=-1), place, np.nan)


def noisy_copies(values: ArrayLike, num: int, *, rng: np.random.Generator) -> np.ndarray:
    r"""Return copies of a curve with its own noise put on it anew, by the wild bootstrap.

    The noise of a record is what it departs from the straight line between its neighbours,
    :math:`(v_{t+1} - 2 v_t + v_{t-1}) / \sqrt{6}`, which a slow movement adds next to nothing to; each copy has it with
    a random sign, around the smoothed curve. Noise that lasts over several records is not seen as noise.

    Parameters
    ----------
    values : array_like, shape (records,)
        At least 10 records.
    num : int
        Number of copies.
    rng : Generator

    Returns
    -------
    ndarray, shape (num, records)

    Raises
    ------
    DataError
        If there are fewer than 10 records.
    """
    curve = _curves(values)
    inner = np.diff(curve, n=2) / np.sqrt(6)
    noise = np.concatenate([inner[:1], inner, inner[-1:]])
    return _smooth(curve) + noise * rng.choice([-1.0, 1.0], size=(num, curve.size))


@dataclass(frozen=True)
class Stop:
    """Where early stopping would have stopped, counted from 0; NaN where it would not have.

    Attributes
    ----------
    stopped, best : float
        Last epoch trained, and the epoch of the best loss by then.
    """

    stopped: float
    best: float


def early_stop(losses: ArrayLike, *, patience: int) -> Stop:
    """Return where early stopping would have ended a training: after `patience` epochs without a new best loss.

    Parameters
    ----------
    losses : array_like, shape (epochs,)
        Smaller is better; NaN is no improvement.
    patience : int
        At least 1.

    Returns
    -------
    Stop

    Raises
    ------
    DataError
        If `patience` is below 1, or `losses` is no vector.

    References
    ----------
    .. [1] Prechelt (1998), Early Stopping - But When?

    Examples
    --------
    >>> early_stop([3.0, 2.0, 2.5, 2.4, 1.0], patience=2)
    Stop(stopped=3.0, best=1.0)
    """
    values = np.asarray(losses, dtype=np.float64)
    if patience < 1 or values.ndim != 1:
        raise DataError(
            f"A vector of losses and a patience of at least 1 are needed, got shape {values.shape} and {patience}. "
            "Use patience=5."
        )
    best, place = np.inf, -1
    for epoch, loss in enumerate(values.tolist()):
        if loss < best:
            best, place = loss, epoch
        elif epoch - place >= patience:
            return Stop(float(epoch), float(place) if place >= 0 else np.nan)
    return Stop(np.nan, np.nan)
