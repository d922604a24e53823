"""Entropy of predictions, split into noise in the data and disagreement between networks; in nats.

References
----------
Depeweg, Hernández-Lobato, Doshi-Velez and Udluft (2018), Decomposition of Uncertainty in Bayesian Deep Learning, eq. 2.
Houlsby, Huszár, Ghahramani and Lengyel (2011), Bayesian Active Learning, eq. 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import probabilities as checked

__all__ = ["EntropyParts", "entropy", "entropy_parts"]


@dataclass(frozen=True)
class EntropyParts:
    """The entropy of each image's prediction and its two parts, in nats.

    Attributes
    ----------
    predictive : ndarray, shape (N,)
        Entropy of the mean probabilities: the whole.
    expected : ndarray, shape (N,)
        Mean entropy of the draws: the aleatoric part.
    mutual_information : ndarray, shape (N,)
        The difference: the epistemic part, mutual information of label and weights; >= 0 up to rounding.
    """

    predictive: np.ndarray
    expected: np.ndarray
    mutual_information: np.ndarray


def entropy(probabilities: ArrayLike) -> np.ndarray:
    r"""Return the entropy of class probabilities, :math:`-\sum_c p_c \log p_c`, with :math:`0 \log 0 = 0`.

    Parameters
    ----------
    probabilities : array_like, shape (..., C)
        Class probabilities on the last axis.

    Returns
    -------
    ndarray, shape (...), float64
        Nats, from 0 to log C.

    Raises
    ------
    DataError
        If a row is not a probability distribution.

    Examples
    --------
    >>> entropy([[1.0, 0.0], [0.5, 0.5]]).round(4).tolist()
    [0.0, 0.6931]
    """
    p = checked(probabilities).astype(np.float64)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1) + 0.0


def entropy_parts(probabilities: ArrayLike) -> EntropyParts:
    """Split the entropy of the mean prediction into expected entropy and mutual information.

    Parameters
    ----------
    probabilities : array_like, shape (S, N, C)
        Class probabilities of S draws of the network for N images.

    Returns
    -------
    EntropyParts

    Raises
    ------
    DataError
        If the shape is another, or a row is not a probability distribution.

    References
    ----------
    .. [1] Depeweg et al. (2018), Decomposition of Uncertainty in Bayesian Deep Learning, eq. 2.

    Examples
    --------
    >>> parts = entropy_parts([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> parts.expected.tolist(), parts.mutual_information.round(4).tolist()
    ([0.0], [0.6931])
    """
    p = np.asarray(probabilities)
    if p.ndim != 3:
        raise DataError(
            f"Probabilities of shape (num_samples, N, C) are needed, got shape {p.shape}. "
            "Put the draws on the first axis; a point estimate has no mutual information."
        )
    expected = entropy(p).mean(axis=0)
    predictive = entropy(p.mean(axis=0, dtype=np.float64))
    return EntropyParts(predictive, expected, predictive - expected)
