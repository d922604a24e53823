"""Means and sums over images with their standard errors; images are taken as independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.metrics.checks import finite_vector

__all__ = ["Estimate", "mean_with_se", "sum_with_se"]


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, both in the unit of the values; the error is NaN from a single value."""

    value: float
    se: float


def mean_with_se(values: ArrayLike) -> Estimate:
    r"""Return the mean over images and its standard error, :math:`s / \sqrt{N}` with :math:`s` from N - 1.

    Parameters
    ----------
    values : array_like, shape (N,)
        One number for each image, for example a log density or 0 and 1 for wrong and right. For a comparison pass the
        differences image by image: the paired standard error is smaller than that of two separate means.

    Returns
    -------
    Estimate

    Raises
    ------
    DataError
        If it is not a vector without NaN.

    Examples
    --------
    >>> mean_with_se([0, 1, 1, 0])
    Estimate(value=0.5, se=0.28867513459481287)
    """
    vector = finite_vector(values, name="values")
    if vector.size < 2:
        return Estimate(float(vector.mean()), float("nan"))
    return Estimate(float(vector.mean()), float(vector.std(ddof=1) / np.sqrt(vector.size)))


def sum_with_se(values: ArrayLike) -> Estimate:
    r"""Return the sum over images and its standard error, :math:`s \sqrt{N}`, as for an elpd.

    Parameters
    ----------
    values : array_like, shape (N,)
        One number for each image.

    Returns
    -------
    Estimate

    Raises
    ------
    DataError
        If it is not a vector without NaN.

    References
    ----------
    .. [1] Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation, eq. 23.

    Examples
    --------
    >>> sum_with_se([1.0, 3.0])
    Estimate(value=4.0, se=2.0)
    """
    vector = finite_vector(values, name="values")
    mean = mean_with_se(vector)
    return Estimate(mean.value * vector.size, mean.se * vector.size)
