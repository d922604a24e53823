"""Calibration: does a predicted probability of 80 % come true in 80 % of the cases.

References
----------
Guo, Pleiss, Sun and Weinberger (2017), On Calibration of Modern Neural Networks, eq. 2 to 4.
Naeini, Cooper and Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import probabilities_and_labels

__all__ = ["Reliability", "ece", "ece_resampled", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width of the confidence (the largest class probability).

    Attributes
    ----------
    edges : ndarray, shape (bins + 1,)
        From 0 to 1. Bin i holds confidences in ``(edges[i], edges[i + 1]]``.
    count : ndarray, shape (bins,), int
        Images in each bin.
    confidence, accuracy : ndarray, shape (bins,)
        Mean confidence and share of correct images in each bin; NaN in an empty bin.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: gap between confidence and accuracy, weighted by the bins' counts; in [0, 1]."""
        gap = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float(np.sum(self.count * gap) / np.sum(self.count))


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> Reliability:
    """Return confidence, accuracy and count in bins of equal width of the confidence.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.
    bins : int
        Number of bins over [0, 1], >= 1.

    Returns
    -------
    Reliability

    Raises
    ------
    DataError
        If the arrays are not probabilities and labels of the same images, or `bins` is below 1.

    References
    ----------
    .. [1] Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 2.

    Examples
    --------
    >>> table = reliability([[0.9, 0.1], [0.6, 0.4]], [0, 1], bins=2)
    >>> table.count.tolist(), table.accuracy.tolist()
    ([0, 2], [nan, 0.5])
    """
    if bins < 1:
        raise DataError(f"At least one bin is needed, got bins={bins}. Use 15, as most papers do.")
    p, y = probabilities_and_labels(probabilities, labels)
    confidence = np.minimum(p.max(axis=1).astype(np.float64), 1.0)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        hit = np.bincount(index, weights=(p.argmax(axis=1) == y).astype(np.float64), minlength=bins) / count
    return Reliability(edges, count, mean_confidence, hit)


def ece(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Return the expected calibration error of the predicted class.

    It depends on `bins` and is biased upwards for few images: compare it only at equal bins and equal numbers.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.
    bins : int
        Number of bins of equal width over [0, 1], >= 1.

    Returns
    -------
    float
        In [0, 1]; 0 is best.

    Raises
    ------
    DataError
        As `reliability`.

    References
    ----------
    .. [1] Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 3.

    Examples
    --------
    >>> round(ece([[0.9, 0.1], [0.6, 0.4]], [0, 1], bins=2), 3)
    0.25
    """
    return reliability(probabilities, labels, bins=bins).ece


def ece_resampled(probabilities: ArrayLike, labels: ArrayLike, counts: ArrayLike, *, bins: int = 15) -> np.ndarray:
    """Return the expected calibration error of resampled images.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
    labels : array_like, shape (N,)
    counts : array_like, shape (N, replicates)
        How often each image is drawn in each replicate, as `pigeonhole_counts` gives it.
    bins : int

    Returns
    -------
    ndarray, shape (replicates,), float64

    Raises
    ------
    DataError
        As `reliability`.

    Examples
    --------
    >>> ece_resampled([[0.9, 0.1], [0.6, 0.4]], [0, 1], [[1, 2], [1, 0]], bins=2).round(3).tolist()
    [0.25, 0.1]
    """
    edges = reliability(probabilities, labels, bins=bins).edges
    p, y = probabilities_and_labels(probabilities, labels)
    confidence = np.minimum(p.max(axis=1).astype(np.float64), 1.0)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gaps = np.zeros((len(y), bins), dtype=np.float32)
    gaps[np.arange(len(y)), index] = (p.argmax(axis=1) == y) - confidence
    weights = np.asarray(counts, dtype=np.float32)
    return np.abs(weights.T @ gaps).sum(axis=1, dtype=np.float64) / weights.sum(axis=0)
