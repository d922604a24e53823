"""What the metrics ask of their arrays, and the errors that say so."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["finite_vector", "positive", "probabilities", "probabilities_and_labels", "scales"]

SUM_TOLERANCE = 1e-3


def scales(sd: ArrayLike, *, name: str = "sd") -> np.ndarray:
    """Return standard deviations as float64, after checking that they are numbers and not negative."""
    values = np.asarray(sd, dtype=np.float64)
    bad = ~(values >= 0)
    if bad.any():
        raise DataError(
            f"{name} must be a standard deviation, >= 0 and not NaN; {int(bad.sum())} of {values.size} are not "
            f"(first: {values[bad].flat[0]}). Pass square roots of variances, from a posterior whose fit is finite."
        )
    return values


def positive(prior_sd: ArrayLike, *, name: str = "prior_sd") -> np.ndarray:
    """Return prior standard deviations as float64, after checking that they are finite and above zero."""
    values = np.asarray(prior_sd, dtype=np.float64)
    bad = ~((values > 0) & np.isfinite(values))
    if bad.any():
        raise DataError(
            f"{name} must be finite and > 0; {int(bad.sum())} of {values.size} are not "
            f"(first: {values[bad].flat[0]}). Weights without a prior have no contraction: leave them out."
        )
    return values


def probabilities(values: ArrayLike) -> np.ndarray:
    """Return class probabilities (..., num_classes) in their own float type, after checking that they are some."""
    p = np.asarray(values)
    p = p if np.issubdtype(p.dtype, np.floating) else p.astype(np.float64)
    if p.ndim < 1 or p.size == 0:
        raise DataError(
            f"Probabilities of shape (..., num_classes) are needed, got shape {p.shape}. Pass one row each."
        )
    slack = SUM_TOLERANCE
    if not bool(np.all((p >= 0) & (p <= 1 + slack))):
        raise DataError(
            f"Probabilities must lie in [0, 1], got values from {np.min(p)} to {np.max(p)}. "
            "Pass softmax outputs, not logits, of a model whose outputs are finite."
        )
    total = p.sum(axis=-1, dtype=np.float64)
    worst = float(np.max(np.abs(total - 1)))
    if worst > slack:
        raise DataError(
            f"Probabilities must sum to 1 over the last axis, but a row is off by {worst:.3g} (shape {p.shape}). "
            "Put the classes on the last axis and normalise each row."
        )
    return p


def probabilities_and_labels(values: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (N, C) and integer labels (N,), after checking that they fit together."""
    p, y = probabilities(values), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise DataError(
            f"Probabilities (N, C) and labels (N,) are needed, got shapes {p.shape} and {y.shape}. "
            "Pass one row of class probabilities and one label for each image."
        )
    whole = y.astype(np.int64)
    if not np.array_equal(whole, y) or whole.min() < 0 or whole.max() >= p.shape[1]:
        raise DataError(
            f"Labels must be whole numbers from 0 to {p.shape[1] - 1}, got values from {y.min()} to {y.max()}. "
            "Number the classes from 0, or give probabilities for all classes."
        )
    return p, whole


def finite_vector(values: ArrayLike, *, name: str) -> np.ndarray:
    """Return `values` as a float64 vector (N,), N >= 1, after checking that it is one without NaN."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0 or np.isnan(vector).any():
        raise DataError(
            f"{name} must be a vector (N,) of at least one number without NaN, got shape {vector.shape} with "
            f"{int(np.isnan(vector).sum())} NaN. Pass one number for each image."
        )
    return vector
