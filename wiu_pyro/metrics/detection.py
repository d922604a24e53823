"""How well a score tells two kinds of images apart: known from unknown, right from wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import finite_vector

__all__ = ["auroc", "auroc_placements"]


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive scores higher than a negative.

    Parameters
    ----------
    scores : array_like, shape (N,)
        Higher means more likely positive, for example the predictive entropy; any unit.
    positive : array_like, shape (N,), bool
        Which images are positive, for example out of distribution.

    Returns
    -------
    float
        In [0, 1]; 0.5 is chance; ties count one half.

    Raises
    ------
    DataError
        If the shapes differ, a score is NaN, or only one of the two kinds is there.

    References
    ----------
    .. [1] Fawcett (2006), An introduction to ROC analysis; computed by scikit-learn.

    Examples
    --------
    >>> auroc([0.1, 0.4, 0.9], [False, True, True])
    1.0
    """
    from sklearn.metrics import roc_auc_score  # a second or two, which reading a layer table need not wait for

    values, kind = finite_vector(scores, name="scores"), np.asarray(positive)
    if kind.shape != values.shape or not np.isin(kind, [0, 1]).all() or np.unique(kind).size < 2:
        raise DataError(
            f"One flag per score, with both kinds present, is needed; got {values.size} scores and flags of shape "
            f"{kind.shape} with values {np.unique(kind)[:4].tolist()}. Give images of both kinds, True for positive."
        )
    return float(roc_auc_score(kind.astype(bool), values))


def auroc_placements(scores: ArrayLike, positive: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return for each image its part in the AUROC: the share of the other kind that it stands on the right side of.

    The mean of either is the AUROC, and their spread over the images gives its error.

    Parameters
    ----------
    scores, positive : array_like, shape (N,)
        As for `auroc`.

    Returns
    -------
    of_positives, of_negatives : ndarray, shapes (num_positive,) and (num_negative,)
        In the order of the images; ties count one half.

    Raises
    ------
    DataError
        As `auroc`.

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver operating
       characteristic curves, eq. 3.

    Examples
    --------
    >>> above, below = auroc_placements([0.1, 0.4, 0.4, 0.9], [False, False, True, True])
    >>> above.tolist(), below.tolist()
    ([0.75, 1.0], [1.0, 0.75])
    """
    values, kind = finite_vector(scores, name="scores"), np.asarray(positive)
    if kind.shape != values.shape or kind.all() or not kind.any():
        raise DataError(
            f"One flag per score, with both kinds present, is needed; got {values.size} scores and flags of shape "
            f"{kind.shape}. Give images of both kinds, True for positive."
        )
    one, other = values[kind.astype(bool)], values[~kind.astype(bool)]
    return _share_below(one, other), 1 - _share_below(other, one)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, values, side=side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(others))
