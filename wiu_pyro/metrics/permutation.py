"""What chance alone does to the correlation of two arrays that have rows and columns of their own.

Weights that share an output or an input are alike, so that shuffling weight by weight would make chance look too
small. Here whole outputs, whole inputs and whole kernel positions of one array are permuted against the other, and the
spread this gives is worked out in closed form: nothing is drawn.

References
----------
Hubert (1987), Assignment methods in combinatorial data analysis, section 4 (permuting rows and columns).
Fisher (1925), Statistical Methods for Research Workers, chapter 7 (sums of squares of a balanced table).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["parts_of_variation", "permutation_sd"]

Parts = dict[tuple[int, ...], float]


def parts_of_variation(values: ArrayLike) -> Parts:
    """Return the sum of squares of each set of axes: what their levels explain and no smaller set does.

    Parameters
    ----------
    values : array_like, any shape
        Finite.

    Returns
    -------
    dict of tuple of int to float
        By the axes longer than 1 and all their combinations; they add up to the sum of squares around the mean.

    Raises
    ------
    DataError
        If a value is not finite.

    Examples
    --------
    >>> parts_of_variation([[0.0, 0.0], [1.0, 1.0]])
    {(0,): 1.0, (1,): 0.0, (0, 1): 0.0}
    """
    array = np.asarray(values)
    if not np.isfinite(array).all():
        raise DataError(
            f"Finite values are needed to part their variation, but {int((~np.isfinite(array)).sum())} of "
            f"{array.size} are not. Put the mean in their place."
        )
    array = array if array.dtype == np.float32 else array.astype(np.float64)
    mean = array.mean(dtype=np.float64)
    axes = tuple(axis for axis, size in enumerate(array.shape) if size > 1)
    sums = _partial_sums(array - array.dtype.type(mean), axes)
    parts: Parts = {}
    effects: dict[tuple[int, ...], Any] = {(): 0.0}
    for kept in sorted(sums, key=len):
        level = sums[kept] * sums[kept].size / array.size
        effects[kept] = level - sum(effect for known, effect in effects.items() if set(known) < set(kept))
        parts[kept] = float(np.sum(effects[kept] ** 2)) * array.size / level.size
    if axes:
        total = sum(float(np.vdot(block, block)) for block in array.reshape(len(array), -1) - array.dtype.type(mean))
        parts[axes] = max(0.0, total - sum(parts.values()))
    return parts


def _partial_sums(array: np.ndarray, axes: tuple[int, ...]) -> dict[tuple[int, ...], np.ndarray]:
    """Return the sums over all axes but those of each proper subset, float64, with axes of length 1 in their place."""
    sums: dict[tuple[int, ...], np.ndarray] = {axes: array}
    for number in range(len(axes) - 1, 0, -1):
        for kept in combinations(axes, number):
            smallest = min((known for known in sums if len(known) == number + 1 and set(kept) < set(known)),
                           key=lambda known: sums[known].size)  # fmt: skip
            (gone,) = set(smallest) - set(kept)
            sums[kept] = _summed(sums[smallest], gone)
    del sums[axes]
    return sums


def _summed(array: np.ndarray, axis: int) -> np.ndarray:
    """Return the sum over one axis, by matrix products: NumPy's own is slow over a short or a middle axis."""
    shape = array.shape
    blocks = array.reshape(int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :])))
    ones = np.ones(shape[axis], dtype=array.dtype)
    summed = blocks[..., 0] @ ones if blocks.shape[2] == 1 else ones @ blocks
    return summed.reshape(*shape[:axis], 1, *shape[axis + 1 :]).astype(np.float64)


def permutation_sd(first: Parts, second: Parts, *, shape: tuple[int, ...]) -> float:
    r"""Return the sd of :math:`\sum (x - \bar x)(y - \bar y)` when each axis of y is permuted by itself.

    Exact: the parts of variation are orthogonal and stay so under these permutations. With sums of squares
    :math:`X_S, Y_S` of the sets S of axes the variance is :math:`\sum_S X_S Y_S / \prod_{a \in S} (n_a - 1)`; the mean
    is 0. Over the root of both total sums of squares it is the sd of the correlation.

    Parameters
    ----------
    first, second : dict of tuple of int to float
        What `parts_of_variation` returned for x and for y.
    shape : tuple of int
        Of both.

    Returns
    -------
    float
        In the product of both units.

    References
    ----------
    .. [1] Hubert (1987), Assignment methods in combinatorial data analysis, section 4.

    Examples
    --------
    >>> parts = parts_of_variation([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    >>> permutation_sd(parts, parts, shape=(3, 2)) ** 2  # 4 * 4 / (3 - 1)
    8.000000000000002
    """
    sizes = np.asarray(shape, dtype=np.float64)
    variance = sum(part * second[axes] / np.prod(sizes[list(axes)] - 1) for axes, part in first.items())
    return float(np.sqrt(variance))
