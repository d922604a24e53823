"""How unequally a total is spread over the layers of a network.

References
----------
Gini (1912), Variabilità e mutabilità; Deltas (2003), The small-sample bias of the Gini coefficient.
Shannon (1948), A mathematical theory of communication, section 6; divided by its largest value: Pielou (1966).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["evenness", "gini"]


def gini(amounts: ArrayLike) -> float:
    r"""Return the Gini coefficient, :math:`\sum_{ij} |x_i - x_j| / (2 n (n - 1) \bar x)`.

    Divided by n (n - 1) rather than n², so that the largest value is 1 for any number of layers.

    Parameters
    ----------
    amounts : array_like, shape (n,)
        Not negative, at least two, not all zero. Amounts or shares: only their ratios count.

    Returns
    -------
    float
        0: all equal; 1: all in one.

    Raises
    ------
    DataError
        If the amounts are fewer than two, negative, not finite, or all zero.

    References
    ----------
    .. [1] Deltas (2003), The small-sample bias of the Gini coefficient.

    Examples
    --------
    >>> gini([1, 1, 1]), gini([0, 0, 5])
    (0.0, 1.0)
    """
    x = np.sort(_amounts(amounts))
    ranks = np.arange(1, x.size + 1)
    return float(np.sum((2 * ranks - x.size - 1) * x) / ((x.size - 1) * x.sum()))


def evenness(amounts: ArrayLike) -> float:
    r"""Return the entropy of the shares as part of its largest value, :math:`-\sum_i p_i \log p_i / \log n`.

    Parameters
    ----------
    amounts : array_like, shape (n,)
        Not negative, at least two, not all zero.

    Returns
    -------
    float
        1: all equal; 0: all in one.

    Raises
    ------
    DataError
        As `gini`.

    References
    ----------
    .. [1] Pielou (1966), The measurement of diversity in different types of biological collections.

    Examples
    --------
    >>> round(evenness([1, 1, 2]), 3), evenness([5, 0, 0])
    (0.946, 0.0)
    """
    x = _amounts(amounts)
    shares = x / x.sum()
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)))
    return float(np.clip(entropy / np.log(x.size), 0.0, 1.0)) + 0.0


def _amounts(amounts: ArrayLike) -> np.ndarray:
    x = np.asarray(amounts, dtype=np.float64).ravel()
    if x.size < 2 or not np.isfinite(x).all() or (x < 0).any() or not x.sum() > 0:
        raise DataError(
            f"At least two amounts are needed, not negative and not all zero, got {x[:5].tolist()} "
            f"({x.size} in all). Leave out layers without a value."
        )
    return x
