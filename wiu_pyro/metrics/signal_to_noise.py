"""A weight's size against its uncertainty.

References
----------
Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), Weight Uncertainty in Neural Networks, section 5.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.metrics.checks import scales

__all__ = ["signal_to_noise"]


def signal_to_noise(mean: ArrayLike, sd: ArrayLike) -> np.ndarray:
    r"""Return the signal-to-noise ratio of each weight, :math:`|\mu| / \sigma`.

    Parameters
    ----------
    mean : array_like, any shape
        Posterior means, in units of the weight.
    sd : array_like, broadcastable against `mean`
        Posterior standard deviations, in the same units, >= 0.

    Returns
    -------
    ndarray, broadcast shape, float64
        Dimensionless, >= 0. ``inf`` where ``sd`` is 0 (a point estimate), NaN where the mean is 0 as well.

    Raises
    ------
    DataError
        If `sd` is negative or NaN.

    References
    ----------
    .. [1] Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.

    Examples
    --------
    >>> signal_to_noise([-2.0, 1.0], [0.5, 0.0]).tolist()
    [4.0, inf]
    """
    noise = scales(sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(np.asarray(mean, dtype=np.float64)) / noise
