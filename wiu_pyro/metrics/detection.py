"""How well a score tells two kinds of images apart: known from unknown, right from wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.checks import finite_vector

__all__ = ["auroc"]


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
