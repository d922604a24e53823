"""How far two posteriors agree on a layer's weights and units, and on the images: figures, and replicates of them.

References
----------
Spearman (1904), The proof and measurement of association between two things.
Owen (2007), The pigeonhole bootstrap (outputs and inputs of a layer resampled at once).
Bonett and Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman correlations, p. 25 (the
standard error of Fisher's z of a rank correlation).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wiu_pyro import metrics
from wiu_pyro.diagnostics.agreement_values import FunctionValues, LayerTable
from wiu_pyro.diagnostics.size_resampling import subset_shape
from wiu_pyro.diagnostics.within_network import FEWEST_CLUSTERS
from wiu_pyro.metrics.ranks import correlation, rank_shares, ranked

__all__ = [
    "LAYER_FIGURES",
    "RANKS",
    "clusters",
    "function_figures",
    "layer_figures",
    "pooled_rank",
    "rank_error",
    "replicates",
]

RANKS = ("weight_rank", "output_rank", "input_rank")
LAYER_FIGURES = (*RANKS, "weight_log_ratio", "weight_log_distance", "weight_distance")
LEAST_RANKED = 3  # values, below which no rank correlation is given
LEAST_UNITS = 5
LEAST_WEIGHTS = 20  # in common in the subset, below which nothing is resampled


def layer_figures(first: LayerTable, second: LayerTable, kind: str) -> dict[str, float]:
    """Return how far two posteriors agree on one layer.

    Parameters
    ----------
    first, second : LayerTable
        Of one layer of the same network.
    kind : str
        ``"conditional"`` or ``"marginal"``, of both.

    Returns
    -------
    dict of str to float
        The `LAYER_FIGURES`; NaN where a posterior has no such sd, or there are too few weights or units in common.
    """
    out = dict.fromkeys(LAYER_FIGURES, np.nan)
    both = first.known & second.known
    if kind not in first.ratio or kind not in second.ratio or both.sum() < LEAST_RANKED:
        return out
    one, two = (table.ratio[kind][both] for table in (first, second))  # float32: layers of millions of weights pass
    log_ratio = np.log(one / two)
    shift = (first.mean - second.mean)[both]
    out |= {
        "weight_rank": correlation(rank_shares(one), rank_shares(two)),
        "weight_log_ratio": float(log_ratio.mean(dtype=np.float64)),
        "weight_log_distance": float(np.sqrt(np.square(log_ratio).mean(dtype=np.float64))),
        "weight_distance": float(np.sqrt((np.square(shift) + np.square(one - two)).mean(dtype=np.float64))),
    }
    if first.units and second.units:
        sides = [_unit_values(table.ratio[kind], both) for table in (first, second)]
        for side, name in enumerate(("output_rank", "input_rank")):
            out[name] = _rank(sides[0][side], sides[1][side], least=LEAST_UNITS)
    return out


def _unit_values(ratio: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of (sd / prior sd)² over the weights of each output and of each input; NaN without weights."""
    square = np.where(known, np.square(ratio), np.float32(0))
    with np.errstate(invalid="ignore"):
        outputs, inputs = (square.sum(axis=axes, dtype=np.float64) / known.sum(axis=axes) for axes in ((1, 2), (0, 2)))
    return outputs, inputs


def _rank(one: np.ndarray, two: np.ndarray, *, least: int = LEAST_RANKED) -> float:
    usable = np.isfinite(one) & np.isfinite(two)
    if usable.sum() < least:
        return float("nan")
    return correlation(rank_shares(one[usable]), rank_shares(two[usable]))


def pooled_rank(first: list[LayerTable], second: list[LayerTable], kind: str) -> float:
    """Return Spearman's correlation over the weights of all layers together; NaN where there are too few.

    Parameters
    ----------
    first, second : list of LayerTable
    kind : str

    Returns
    -------
    float
    """
    pairs = [
        (one.ratio[kind][both], two.ratio[kind][both])
        for one, two in zip(first, second, strict=True)
        if kind in one.ratio and kind in two.ratio
        for both in [one.known & two.known]
    ]
    if not pairs:
        return float("nan")
    return _rank(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


def clusters(first: LayerTable, second: LayerTable) -> int:
    """Return the fewer of the outputs and inputs with weights in common; 0 where they are too few to be resampled.

    Parameters
    ----------
    first, second : LayerTable

    Returns
    -------
    int
    """
    if not (first.units and second.units):
        return 0
    both = first.known & second.known
    fewest = min(int(both.any(axis=axes).sum()) for axes in ((1, 2), (0, 2)))
    return fewest if fewest >= FEWEST_CLUSTERS else 0


def replicates(
    first: LayerTable, second: LayerTable, kind: str, *, num_bootstrap: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return bootstrap replicates of the figures of one layer, its outputs and inputs resampled at once.

    Of a large layer a random subset of outputs and inputs stands for all, drawn as often as the layer has them.

    Parameters
    ----------
    first, second : LayerTable
        With enough outputs and inputs.
    kind : str
    num_bootstrap, seed : int

    Returns
    -------
    dict of str to ndarray, shape (num_bootstrap,)
        Empty where the posteriors have hardly a weight in common.
    """
    rng = np.random.default_rng(seed)
    both = first.known & second.known
    rows, columns = (np.flatnonzero(both.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    whole = (rows.size, columns.size, both.shape[2])
    kept = subset_shape(whole)
    place = np.ix_(*(np.sort(rng.choice(side, num, replace=False)) for side, num in zip((rows, columns), kept)))
    known = both[place]
    if kind not in first.ratio or kind not in second.ratio or known.sum() < LEAST_WEIGHTS:
        return {}
    tables = [np.where(known, table.ratio[kind][place], np.float32(1)) for table in (first, second)]
    one, two = (table[known].astype(np.float64) for table in tables)
    shift = (first.mean - second.mean)[place][known].astype(np.float64)
    each = {"weight_log_ratio": np.log(one / two), "weight_distance": np.square(shift) + np.square(one - two)}
    each["weight_log_distance"] = np.square(each["weight_log_ratio"])
    sorted_by = [ranked(one), ranked(two)]
    squares = [np.where(known, np.square(table), 0).sum(axis=2, dtype=np.float64) for table in tables]
    counts = known.sum(axis=2)
    found: dict[str, list[float]] = {name: [] for name in LAYER_FIGURES}
    for row, column in _counts(known.shape, whole, num_bootstrap, rng=rng):
        weights = np.broadcast_to((row[:, None] * column)[..., None], known.shape)[known]
        total = weights.sum()
        found["weight_rank"].append(correlation(*(ranks.share(weights) for ranks in sorted_by), weights))
        for name, values in each.items():
            mean = values @ weights / total if total > 0 else np.nan
            found[name].append(float(mean if name == "weight_log_ratio" else np.sqrt(mean)))
        found["output_rank"].append(_resampled_rank(squares, counts, column, row))
        found["input_rank"].append(_resampled_rank([square.T for square in squares], counts.T, row, column))
    return {name: np.array(values) for name, values in found.items()}


def _counts(
    kept: tuple[int, ...], whole: tuple[int, ...], num: int, *, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield how often each row and each column is drawn."""
    for _ in range(num):
        row, column = (
            rng.multinomial(drawn, np.full(size, 1 / size)).astype(np.float64)
            for size, drawn in zip(kept[:2], whole[:2], strict=True)
        )
        yield row, column


def _resampled_rank(squares: list[np.ndarray], counts: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> float:
    """Return the rank correlation of unit means, each over what was drawn inside it, the units counted as drawn."""
    weight = counts @ inner
    usable = (weight > 0) & (outer > 0)
    if usable.sum() < LEAST_RANKED:
        return float("nan")
    means = [(square @ inner)[usable] / weight[usable] for square in squares]
    return correlation(*(ranked(mean).share(outer[usable]) for mean in means), outer[usable])


def function_figures(first: FunctionValues, second: FunctionValues) -> dict[str, tuple[float, float]]:
    """Return how far two posteriors agree on the images, each figure with its standard error over images.

    Parameters
    ----------
    first, second : FunctionValues
        Of the same images.

    Returns
    -------
    dict of str to (float, float)
        ``function_rank`` of the variances (standard error of Fisher's z of it), ``function_log_ratio`` of the
        variances, mean over images where both are above 0, ``function_distance``: half the summed absolute difference
        of the predicted means, averaged over images.
    """
    positive = (first.variance > 0) & (second.variance > 0)
    rank = _rank(first.variance, second.variance)
    out = {"function_rank": (rank, rank_error(rank, len(first.variance)))}
    nothing = (float("nan"), float("nan"))
    out |= {"function_log_ratio": nothing}
    if positive.any():
        found = metrics.mean_with_se(np.log(first.variance[positive] / second.variance[positive]))
        out["function_log_ratio"] = (found.value, found.se)
    found = metrics.mean_with_se(np.abs(first.mean - second.mean).sum(axis=1).astype(np.float64) / 2)
    return out | {"function_distance": (found.value, found.se)}


def rank_error(rank: float, number: int) -> float:
    r"""Return the standard error of Fisher's z of a rank correlation, :math:`\sqrt{(1 + \rho^2 / 2) / (N - 3)}`.

    Parameters
    ----------
    rank : float
    number : int
        Independent pairs it is taken over.

    Returns
    -------
    float
        NaN of fewer than 4.

    References
    ----------
    .. [1] Bonett and Wright (2000), Psychometrika 65, p. 25.
    """
    return float(np.sqrt((1 + rank**2 / 2) / (number - 3))) if number > 3 else float("nan")
