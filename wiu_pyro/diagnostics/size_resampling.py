"""How far a layer's relation of size and sd would move with other outputs and inputs: bootstrap replicates of it.

Outputs and inputs are resampled, both at once; ranks are taken anew in each replicate. Of a large layer a random subset
of outputs and inputs stands for all, drawn as often as the layer has them, so that the spread is the whole layer's.

References
----------
Owen (2007), The pigeonhole bootstrap, section 3.
Kleiner, Talwalkar, Sarkar and Jordan (2014), A scalable bootstrap for massive data, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wiu_pyro.diagnostics.weight_size import Quantities, kept_in_common, pair_slopes
from wiu_pyro.diagnostics.within_network import FEWEST_CLUSTERS
from wiu_pyro.metrics.ranks import correlation, ranked, weighted_median

__all__ = ["replicates", "subset_shape"]

MOST_WEIGHTS = 16_384  # of the subset
MOST_PAIRS = 20_000
LEAST_WEIGHTS = 100  # known ones, below which the subset says nothing


def replicates(
    quantities: Quantities, levels: tuple[float, ...], *, num_bootstrap: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return bootstrap replicates of the relation of size and sd.

    Parameters
    ----------
    quantities : Quantities
        Of a parameter with enough outputs and inputs, each with known weights.
    levels : tuple of float
        Shares removed, for the sets of weights kept.
    num_bootstrap, seed : int

    Returns
    -------
    dict of str to ndarray
        ``spearman``, ``slope``, ``rank_agreement``, shapes (num_bootstrap,), and ``kept_in_common``, shape
        (num_bootstrap, levels). Empty where the subset holds hardly a known weight.
    """
    rng = np.random.default_rng(seed)
    whole = quantities.known.shape
    rows, columns = (
        np.sort(rng.choice(size, kept, replace=False)) for size, kept in zip(whole, subset_shape(whole), strict=False)
    )
    small = quantities.subset(rows, columns)
    if small.known.sum() < LEAST_WEIGHTS:
        return {}
    names = ("size", "ratio", "absolute", "snr")
    sorted_by = {name: ranked(small.of_known(name)) for name in names}
    slopes, pairs = pair_slopes(small.of_known("size"), small.of_known("ratio"), pairs=MOST_PAIRS)
    found: dict[str, list] = {name: [] for name in ("spearman", "slope", "rank_agreement", "kept_in_common")}
    for weights in _weights(small.known, whole[:2], num_bootstrap, rng=rng):
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where no known weight was drawn
            shares = {name: one.share(weights) for name, one in sorted_by.items()}
            ranks = (shares["absolute"], shares["snr"])
            found["spearman"].append(correlation(shares["size"], shares["ratio"], weights))
            found["slope"].append(_slope(slopes, weights[pairs]))
            found["rank_agreement"].append(correlation(*ranks, weights))
            found["kept_in_common"].append(kept_in_common(ranks, levels, weights=weights))
    return {name: np.array(values) for name, values in found.items()}


def subset_shape(whole: tuple[int, ...]) -> tuple[int, int]:
    """Return how many outputs and inputs of a large layer are kept: all, or about equally many of both.

    Parameters
    ----------
    whole : tuple of int
        Outputs, inputs, kernel positions.

    Returns
    -------
    (int, int)
    """
    side = max(FEWEST_CLUSTERS, int(np.sqrt(MOST_WEIGHTS / whole[2])))
    short = min(whole[0], whole[1], side)
    long = max(FEWEST_CLUSTERS, MOST_WEIGHTS // (whole[2] * short))
    return (min(whole[0], long), short) if whole[0] > whole[1] else (short, min(whole[1], long))


def _weights(known: np.ndarray, whole: tuple[int, ...], num: int, *, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each known weight is drawn, (N,), replicate by replicate."""
    for _ in range(num):
        rows, columns = (
            rng.multinomial(drawn, np.full(size, 1 / size)) for size, drawn in zip(known.shape[:2], whole, strict=True)
        )
        drawn_weights = np.broadcast_to((rows[:, None] * columns)[..., None], known.shape)[known]
        yield drawn_weights.astype(np.float64)


def _slope(slopes: np.ndarray, weights: np.ndarray) -> float:
    both = weights[0] * weights[1]
    return weighted_median(slopes, both) if both.sum() > 0 else float("nan")
