"""Scores of class probabilities against labels: accuracy, negative log likelihood, Brier.

References
----------
Gneiting and Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation.
Brier (1950), Verification of Forecasts Expressed in Terms of Probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.metrics.checks import probabilities_and_labels

__all__ = ["accuracy", "brier", "brier_pointwise", "correct", "nll", "nll_pointwise"]


def correct(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Return for each image whether its most probable class is its label.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    ndarray, shape (N,), bool
        Of classes equally probable the first counts as predicted.

    Raises
    ------
    DataError
        If the arrays are not probabilities and labels of the same images.

    Examples
    --------
    >>> correct([[0.9, 0.1], [0.6, 0.4]], [0, 1]).tolist()
    [True, False]
    """
    p, y = probabilities_and_labels(probabilities, labels)
    return p.argmax(axis=1) == y


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of images whose most probable class is their label.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    DataError
        As `correct`.

    Examples
    --------
    >>> accuracy([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    0.5
    """
    return float(correct(probabilities, labels).mean())


def nll_pointwise(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    r"""Return the negative log probability of each image's label, :math:`-\log p_{n, y_n}`.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities. Nothing is clipped but an underflow: a probability below the smallest normal number of the
        array's float type counts as that number (float32: 1.2e-38, 87.3 nats; float64: 2.2e-308, 708 nats).
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    ndarray, shape (N,), float64
        Nats, >= 0 up to rounding.

    Raises
    ------
    DataError
        As `correct`.

    Examples
    --------
    >>> nll_pointwise([[1.0, 0.0], [0.5, 0.5]], [0, 1]).round(3).tolist()
    [-0.0, 0.693]
    """
    p, y = probabilities_and_labels(probabilities, labels)
    at_label = p[np.arange(y.size), y]
    return -np.log(np.maximum(at_label, np.finfo(p.dtype).tiny).astype(np.float64))


def nll(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean negative log likelihood of the labels, in nats per image.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities; underflow as in `nll_pointwise`.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    float
        Nats per image.

    Raises
    ------
    DataError
        As `correct`.

    Examples
    --------
    >>> round(nll([[0.25, 0.75], [0.5, 0.5]], [1, 0]), 4)
    0.4904
    """
    return float(nll_pointwise(probabilities, labels).mean())


def brier_pointwise(probabilities: ArrayLike, labels: ArrayLike) -> np.ndarray:
    r"""Return the Brier score of each image, :math:`\sum_c (p_{nc} - [y_n = c])^2`: a sum over classes, not a mean.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    ndarray, shape (N,), float64
        In [0, 2]; 0 is best. With two classes it is twice the score of the positive class alone.

    Raises
    ------
    DataError
        As `correct`.

    References
    ----------
    .. [1] Brier (1950), Verification of Forecasts Expressed in Terms of Probability, eq. 2.

    Examples
    --------
    >>> brier_pointwise([[1.0, 0.0], [0.5, 0.5]], [1, 1]).tolist()
    [2.0, 0.5]
    """
    p, y = probabilities_and_labels(probabilities, labels)
    error = p.astype(np.float64)
    error[np.arange(y.size), y] -= 1.0
    return np.sum(error**2, axis=1)


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean Brier score over images, each a sum over classes.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Class probabilities.
    labels : array_like, shape (N,)
        Classes, whole numbers from 0.

    Returns
    -------
    float
        In [0, 2]; 0 is best.

    Raises
    ------
    DataError
        As `correct`.

    Examples
    --------
    >>> brier([[1.0, 0.0], [0.5, 0.5]], [1, 1])
    1.25
    """
    return float(brier_pointwise(probabilities, labels).mean())
