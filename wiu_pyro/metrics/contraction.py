"""How far data have narrowed a weight's posterior against its prior.

Contraction and the effective number of parameters survive rescaling of a layer together with its prior, which raw
standard deviations do not.

References
----------
MacKay (1992), Bayesian Interpolation (the number of well-determined parameters).
Schad, Betancourt and Vasishth (2021), Toward a principled Bayesian workflow (posterior contraction).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.metrics.checks import positive, scales

__all__ = ["contraction", "effective_parameters"]


def contraction(sd: ArrayLike, prior_sd: ArrayLike) -> np.ndarray:
    r"""Return the contraction of each weight, :math:`1 - \sigma^2 / \sigma_0^2`.

    Parameters
    ----------
    sd : array_like, any shape
        Posterior standard deviations, in units of the weight, >= 0.
    prior_sd : array_like, broadcastable against `sd`
        Prior standard deviations, in the same units, > 0.

    Returns
    -------
    ndarray, broadcast shape, float64
        Dimensionless, at most 1. 1: determined by data; 0: at the prior; below 0: wider than the prior.

    Raises
    ------
    DataError
        If `sd` is negative or NaN, or `prior_sd` is not finite and positive.

    Examples
    --------
    >>> contraction([0.0, 0.5, 1.0], 1.0).tolist()
    [1.0, 0.75, 0.0]
    """
    return 1.0 - (scales(sd) / positive(prior_sd)) ** 2


def effective_parameters(sd: ArrayLike, prior_sd: ArrayLike) -> float:
    r"""Return the effective number of parameters, :math:`\sum_i (1 - \sigma_i^2 / \sigma_{0,i}^2)`.

    With marginal variances of a Gaussian posterior and a factorised prior this is MacKay's
    :math:`\gamma = P - \mathrm{tr}(\Sigma \Sigma_0^{-1})`. With the variances of a factorised posterior it is only a
    sum of contractions, and larger.

    Parameters
    ----------
    sd : array_like, any shape
        Marginal posterior standard deviations, in units of the weight, >= 0.
    prior_sd : array_like, broadcastable against `sd`
        Prior standard deviations, in the same units, > 0.

    Returns
    -------
    float
        At most the number of weights.

    Raises
    ------
    DataError
        As `contraction`.

    References
    ----------
    .. [1] MacKay (1992), Bayesian Interpolation.

    Examples
    --------
    >>> effective_parameters([0.0, 0.5, 1.0], 1.0)
    1.75
    """
    return float(np.sum(contraction(sd, prior_sd)))
