"""Kullback-Leibler divergence of a weight's posterior from its prior, in nats."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.metrics.checks import positive, scales

__all__ = ["kl_normal"]


def kl_normal(mean: ArrayLike, sd: ArrayLike, *, prior_mean: ArrayLike = 0.0, prior_sd: ArrayLike) -> np.ndarray:
    r"""Return :math:`\mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(\mu_0, \sigma_0^2))` of each weight.

    The sum over weights is the KL of the whole posterior only where the posterior factorises over the weights.

    Parameters
    ----------
    mean, sd : array_like, broadcastable
        Posterior means and standard deviations, in units of the weight; ``sd`` >= 0.
    prior_mean, prior_sd : array_like, broadcastable
        Those of the prior; ``prior_sd`` > 0.

    Returns
    -------
    ndarray, broadcast shape, float64
        Nats, >= 0; ``inf`` where ``sd`` is 0.

    Raises
    ------
    DataError
        If `sd` is negative or NaN, or `prior_sd` is not finite and positive.

    References
    ----------
    .. [1] Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B.

    Examples
    --------
    >>> kl_normal([0.0, 2.0], 1.0, prior_sd=1.0).tolist()
    [0.0, 2.0]
    """
    scale = positive(prior_sd)
    ratio = (scales(sd) / scale) ** 2
    shift = (np.asarray(mean, dtype=np.float64) - np.asarray(prior_mean, dtype=np.float64)) / scale
    with np.errstate(divide="ignore"):
        return 0.5 * (shift**2 + (ratio - 1.0 - np.log(ratio)))
