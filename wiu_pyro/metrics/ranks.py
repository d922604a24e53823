"""Rank correlation of two quantities over millions of weights, sorted once, and again under weights.

References
----------
Spearman (1904), The proof and measurement of association between two things (ties by their mean rank).
Sen (1968), Estimates of the regression coefficient based on Kendall's tau (the median of pairwise slopes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import finite_vector

__all__ = ["Ranked", "correlation", "rank_shares", "ranked", "sorting_order", "spearman", "weighted_median"]


def sorting_order(values: ArrayLike) -> np.ndarray:
    """Return the indices that sort a vector; of float32 in half of NumPy's time.

    Parameters
    ----------
    values : array_like, shape (N,)
        Finite.

    Returns
    -------
    ndarray of int, shape (N,)

    Raises
    ------
    DataError
        If it is not a vector of finite numbers.
    """
    vector = np.asarray(values)
    if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
        raise DataError(
            f"A vector of finite numbers is needed to rank, got shape {vector.shape} with "
            f"{int((~np.isfinite(vector)).sum())} that are not finite. Leave those out."
        )
    if vector.dtype != np.float32 or vector.size >= 2**32:
        return np.argsort(vector, kind="stable")
    # the bits of a float32 in an integer that sorts alike, above the index: one sort of plain integers
    bits = np.ascontiguousarray(vector + np.float32(0)).view(np.uint32)  # -0 is 0
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(vector.size, dtype=np.uint64)
    keys.sort()
    return keys.astype(np.uint32)


def rank_shares(values: ArrayLike, order: np.ndarray | None = None) -> np.ndarray:
    """Return the share of the values below each, of equal ones half: a mean rank between 0 and 1.

    Parameters
    ----------
    values : array_like, shape (N,)
        Finite.
    order : ndarray of int, shape (N,), optional
        Indices that sort them, where they are known already.

    Returns
    -------
    ndarray, shape (N,), float32

    Raises
    ------
    DataError
        If it is not a vector of finite numbers.

    Examples
    --------
    >>> rank_shares([3.0, 1.0, 1.0, 2.0]).tolist()
    [0.875, 0.25, 0.25, 0.625]
    """
    vector = np.asarray(values)
    order = sorting_order(vector) if order is None else order
    starts, sizes = _ties(vector[order])
    out = np.empty(vector.size, dtype=np.float32)
    out[order] = np.repeat(((2.0 * starts + sizes) / (2 * vector.size)).astype(np.float32), sizes)
    return out


def _ties(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each group of equal values begins in a sorted vector, and how many it has."""
    starts = np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)
    return starts, np.diff(starts, append=ordered.size)


@dataclass(frozen=True)
class Ranked:
    """A vector sorted once, whose mean ranks can then be had under any weights without sorting again.

    Attributes
    ----------
    order : ndarray of int, shape (N,)
        Indices that sort the vector.
    first, after : ndarray of int, shape (N,)
        At each sorted place, the first place that holds the same value, and the one after the last.
    """

    order: np.ndarray
    first: np.ndarray
    after: np.ndarray

    def share(self, weights: np.ndarray) -> np.ndarray:
        """Return the share of the total weight below each value, of equal values half, (N,), between 0 and 1."""
        total = np.concatenate([[0.0], np.cumsum(weights[self.order])])
        out = np.empty(self.order.size)
        out[self.order] = (total[self.first] + total[self.after]) / (2 * total[-1])
        return out


def ranked(values: ArrayLike) -> Ranked:
    """Sort a vector and find its ties.

    Parameters
    ----------
    values : array_like, shape (N,)
        Finite.

    Returns
    -------
    Ranked

    Raises
    ------
    DataError
        If it is not a vector of finite numbers.

    Examples
    --------
    >>> ranked([3.0, 1.0, 1.0, 2.0]).share(np.array([1.0, 1.0, 1.0, 5.0])).tolist()
    [0.9375, 0.125, 0.125, 0.5625]
    """
    vector = np.asarray(values)
    order = sorting_order(vector)
    starts, sizes = _ties(vector[order])
    first = np.repeat(starts, sizes)
    return Ranked(order, first, np.repeat(starts + sizes, sizes))


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the correlation of two vectors, weighted; NaN where one of them is constant."""
    w = np.broadcast_to(1.0, first.shape) if weights is None else weights
    total = float(np.sum(w, dtype=np.float64))
    one = first - np.sum(w * first, dtype=np.float64) / total
    two = second - np.sum(w * second, dtype=np.float64) / total
    spread = np.sum(w * one * one, dtype=np.float64) * np.sum(w * two * two, dtype=np.float64)
    if not spread > 0:
        return float("nan")
    return float(np.clip(np.sum(w * one * two, dtype=np.float64) / np.sqrt(spread), -1.0, 1.0))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return Spearman's rank correlation, ties by their mean rank.

    Parameters
    ----------
    first, second : array_like, shape (N,)
        Finite.

    Returns
    -------
    float
        From -1 to 1; NaN where all values of one vector are the same.

    Raises
    ------
    DataError
        If they are not two vectors of finite numbers of one length.

    References
    ----------
    .. [1] Spearman (1904), The proof and measurement of association between two things.

    Examples
    --------
    >>> spearman([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 5.0])
    0.4
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.shape != two.shape:
        raise DataError(
            f"Two vectors of one length are needed, got shapes {one.shape} and {two.shape}. Pair them value by value."
        )
    return correlation(rank_shares(one), rank_shares(two))


def weighted_median(values: ArrayLike, weights: ArrayLike) -> float:
    """Return the value at which half of the weight is reached.

    Parameters
    ----------
    values : array_like, shape (N,)
        Sorted, ascending.
    weights : array_like, shape (N,)
        Not negative, with a positive sum.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If the weights are no vector of finite numbers, or all zero.

    Examples
    --------
    >>> weighted_median([1.0, 2.0, 3.0], [1, 1, 5])
    3.0
    """
    total = np.cumsum(finite_vector(weights, name="weights"))
    if not total[-1] > 0:
        raise DataError("Weights with a positive sum are needed for a median, got a sum of 0. Weight some values.")
    return float(np.asarray(values)[np.searchsorted(total, total[-1] / 2)])
