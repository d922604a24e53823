"""Tables of outputs by inputs: bootstrap over both at once, and how much of the spread lies along each.

References
----------
Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1: rows and columns are resampled independently, and
an entry counts the product of both.
McCullagh (2000), Resampling and exchangeable arrays: no bootstrap is exact for such a table; this one is too wide.
Fisher (1925), Statistical Methods for Research Workers, chapter 7 (sums of squares of a balanced table).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["crossed_shares", "pigeonhole_counts", "pigeonhole_sums"]

ROUNDING = 1e-12  # of the mean square, below which values count as equal


def pigeonhole_counts(num: int, num_bootstrap: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `num` rows (or columns) is drawn in each replicate, with replacement.

    Parameters
    ----------
    num, num_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (num, num_bootstrap), float32
        Each column sums to `num`.
    """
    drawn = rng.integers(num, size=(num_bootstrap, num), dtype=np.int64)
    drawn += num * np.arange(num_bootstrap)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num * num_bootstrap)
    return np.ascontiguousarray(counts.reshape(num_bootstrap, num).T, dtype=np.float32)


def pigeonhole_sums(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    r"""Return :math:`\sum_{ij} r_{ib} c_{jb} t_{ij}` of each replicate b.

    Parameters
    ----------
    table : ndarray, shape (n, m)
    rows, columns : ndarray, shapes (n, num_bootstrap) and (m, num_bootstrap)
        From `pigeonhole_counts`.

    Returns
    -------
    ndarray, shape (num_bootstrap,), float64

    Examples
    --------
    >>> pigeonhole_sums(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0], [0.0]]), np.array([[1.0], [1.0]]))
    array([6.])
    """
    along = table @ columns  # (n, num_bootstrap)
    return np.einsum("nb,nb->b", along, rows, dtype=np.float64)


def crossed_shares(values: ArrayLike) -> np.ndarray:
    r"""Return the shares of a table's spread that lie between the levels of each axis, and the rest.

    The sums of squares of a balanced crossed analysis of variance, exact: the means along one axis, taken around the
    overall mean, for each axis; the rest is interactions and what differs from entry to entry.

    Parameters
    ----------
    values : array_like, shape (a, b, ...)
        Finite; at least two axes.

    Returns
    -------
    ndarray, shape (ndim + 1,), float64
        Each in [0, 1]; they sum to 1. NaN where all values are equal.

    Raises
    ------
    DataError
        If there are fewer than two axes or a value is not finite.

    References
    ----------
    .. [1] Fisher (1925), Statistical Methods for Research Workers, chapter 7.

    Examples
    --------
    >>> crossed_shares([[0.0, 0.0], [1.0, 1.0]]).tolist()
    [1.0, 0.0, 0.0]
    """
    table = np.asarray(values)
    if table.ndim < 2 or not np.isfinite(table).all():
        raise DataError(
            f"A table of at least two axes and finite values is needed, got shape {table.shape} with "
            f"{int((~np.isfinite(table)).sum())} values that are not finite. Leave out rows or columns without values."
        )
    mean = table.mean(dtype=np.float64)
    total = sum(float(np.square(block - mean, dtype=np.float64).mean()) for block in table) / len(table)
    if not total > ROUNDING * (mean**2 + total):
        return np.full(table.ndim + 1, np.nan)
    axes = range(table.ndim)
    between = [
        float(np.square(table.mean(axis=tuple(a for a in axes if a != axis), dtype=np.float64) - mean).mean())
        for axis in axes
    ]
    shares = np.array(between) / total
    return np.append(shares, max(0.0, 1.0 - shares.sum()))
