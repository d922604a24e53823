"""How surely the spread within a layer lies along outputs, inputs or kernel positions: a two-way bootstrap of shares.

References
----------
Owen (2007), The pigeonhole bootstrap.
Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 10 (bias).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from wiu_pyro import metrics

__all__ = ["share_intervals"]


def share_intervals(
    values: np.ndarray, *, level: float, num_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals of the shares of a table's spread, were its outputs and inputs others drawn like them.

    Shares of a finite table are too large: means of a few noisy entries differ by chance. Resampling adds that once
    more and so tells by how much; the interval is centred where the share stands without it.

    Parameters
    ----------
    values : ndarray, shape (out, in, positions)
        Finite and not all equal.
    level : float
        Of each interval by itself.
    num_bootstrap, seed : int

    Returns
    -------
    low, high : ndarray, shape (4,)
        Of the shares between outputs, inputs, positions and of the rest, within [0, 1].
    """
    rng = np.random.default_rng(seed)
    outputs, inputs, _ = values.shape
    rows = metrics.pigeonhole_counts(outputs, num_bootstrap, rng=rng)
    columns = metrics.pigeonhole_counts(inputs, num_bootstrap, rng=rng)
    replicates = _replicates(values - np.float32(values.mean(dtype=np.float64)), rows, columns)
    centre = 2 * metrics.crossed_shares(values) - replicates.mean(axis=0)
    reach = stats.t.isf((1 - level) / 2, min(outputs, inputs) - 1) * replicates.std(axis=0, ddof=1)
    return np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)


def _replicates(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the shares of each resampled table, (num_bootstrap, 4)."""
    outputs, inputs, positions = values.shape
    size = outputs * inputs
    cells = values.mean(axis=2)  # (out, in)
    by_output = cells @ columns / inputs  # (out, num_bootstrap): means of the rows
    by_input = cells.T @ rows / outputs
    mean = np.einsum("nb,nb->b", by_output, rows, dtype=np.float64) / outputs
    squares = np.einsum("nmp,nmp->nm", values, values) / positions
    total = metrics.pigeonhole_sums(squares, rows, columns) / size - mean**2
    between = [
        np.einsum("nb,nb,nb->b", by_output, by_output, rows, dtype=np.float64) / outputs - mean**2,
        np.einsum("nb,nb,nb->b", by_input, by_input, columns, dtype=np.float64) / inputs - mean**2,
        np.zeros_like(mean),
    ]
    if positions > 1:
        means = [metrics.pigeonhole_sums(values[:, :, place], rows, columns) / size for place in range(positions)]
        between[2] = np.mean(np.square(means), axis=0) - mean**2
    shares = np.stack(between, axis=1) / total[:, None]
    return np.column_stack([shares, 1 - shares.sum(axis=1)])
