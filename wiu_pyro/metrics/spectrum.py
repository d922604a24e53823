"""In how many directions a spectrum lies.

References
----------
Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality.
Gao, Trautmann, Yu, Santhanam, Ryu, Shenoy and Ganguli (2017), A theory of multineuronal dimensionality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["effective_rank", "participation_ratio"]


def participation_ratio(eigenvalues: ArrayLike) -> float:
    r"""Return the number of directions a spectrum lies in, :math:`(\sum \lambda)^2 / \sum \lambda^2`.

    Parameters
    ----------
    eigenvalues : array_like, shape (n,)
        Not negative, not all zero.

    Returns
    -------
    float
        From 1, all in one direction, to n, all equal.

    Raises
    ------
    DataError
        If a value is negative or not finite, or all are zero.

    References
    ----------
    .. [1] Gao et al. (2017), A theory of multineuronal dimensionality.

    Examples
    --------
    >>> participation_ratio([2.0, 2.0, 0.0])
    2.0
    """
    values = _spectrum(eigenvalues)
    return float(1 / np.sum(values**2))


def effective_rank(eigenvalues: ArrayLike) -> float:
    r"""Return the exponential of the spectrum's entropy: as `participation_ratio`, but small eigenvalues count more.

    Parameters
    ----------
    eigenvalues : array_like, shape (n,)
        Not negative, not all zero.

    Returns
    -------
    float
        From 1 to n; at least the participation ratio.

    Raises
    ------
    DataError
        As `participation_ratio`.

    References
    ----------
    .. [1] Roy and Vetterli (2007), The effective rank.

    Examples
    --------
    >>> round(effective_rank([2.0, 2.0, 0.0]), 12)
    2.0
    """
    values = _spectrum(eigenvalues)
    return float(np.exp(-np.sum(values * np.log(np.where(values > 0, values, 1.0)))))


def _spectrum(eigenvalues: ArrayLike) -> np.ndarray:
    values = np.asarray(eigenvalues, dtype=np.float64).ravel()
    if not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
        raise DataError(
            f"Eigenvalues are needed, not negative and not all zero, got {values[:5].tolist()} ({values.size} in all). "
            "A layer through which nothing passed has none."
        )
    return values / values.sum()
