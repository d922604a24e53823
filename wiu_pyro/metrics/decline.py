"""A classifier that may decline: its risk on the images it still answers.

References
----------
El-Yaniv and Wiener (2010), On the Foundations of Noise-free Selective Classification.
Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks.
Geifman, Uziel and El-Yaniv (2019), Bias-Reduced Uncertainty Estimation, eq. 2 (AURC).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import finite_vector

__all__ = ["RiskCoverage", "decline_order", "risk_coverage"]


@dataclass(frozen=True)
class RiskCoverage:
    """Risk against coverage when the most uncertain images are declined first.

    Attributes
    ----------
    coverage : ndarray, shape (N,)
        Shares of images answered, 1/N, 2/N, ..., 1.
    risk : ndarray, shape (N,)
        Mean loss over the images answered; the error rate where the loss is 0 or 1.
    aurc : float
        Mean of the risk over these coverages; smaller is better.
    """

    coverage: np.ndarray
    risk: np.ndarray
    aurc: float


def decline_order(uncertainty: ArrayLike) -> np.ndarray:
    """Return the images in the order in which they are declined: the most uncertain first.

    Parameters
    ----------
    uncertainty : array_like, shape (N,)
        Any unit, for example the predictive entropy in nats.

    Returns
    -------
    ndarray, shape (N,), int
        Positions; equally uncertain images stay in their order.

    Raises
    ------
    DataError
        If it is not a vector without NaN.

    Examples
    --------
    >>> decline_order([0.1, 0.7, 0.3]).tolist()
    [1, 2, 0]
    """
    return np.argsort(-finite_vector(uncertainty, name="uncertainty"), kind="stable")


def risk_coverage(loss: ArrayLike, uncertainty: ArrayLike) -> RiskCoverage:
    """Return the risk of a classifier that declines its most uncertain images, at every coverage.

    Equally uncertain images share their mean loss, which is what declining among them at random gives on average; so
    the curve does not depend on the order of the images.

    Parameters
    ----------
    loss : array_like, shape (N,)
        Loss of each image, for example 1 where the class is wrong and 0 where it is right.
    uncertainty : array_like, shape (N,)
        Any unit.

    Returns
    -------
    RiskCoverage

    Raises
    ------
    DataError
        If the two are not vectors of the same length without NaN.

    References
    ----------
    .. [1] Geifman, Uziel and El-Yaniv (2019), Bias-Reduced Uncertainty Estimation, eq. 2.

    Examples
    --------
    >>> curve = risk_coverage([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8])
    >>> curve.risk.round(3).tolist(), round(curve.aurc, 3)
    ([0.0, 0.0, 0.333, 0.5], 0.208)
    """
    losses = finite_vector(loss, name="loss")
    scores = finite_vector(uncertainty, name="uncertainty")
    if losses.shape != scores.shape:
        raise DataError(
            f"One loss and one uncertainty per image are needed, got {losses.size} and {scores.size}. "
            "Pass both for the same images in the same order."
        )
    _, group = np.unique(scores, return_inverse=True)
    shared = (np.bincount(group, weights=losses) / np.bincount(group))[group]
    answered = np.arange(1, losses.size + 1)
    risk = np.cumsum(shared[np.argsort(scores, kind="stable")]) / answered
    return RiskCoverage(answered / losses.size, risk, float(risk.mean()))
