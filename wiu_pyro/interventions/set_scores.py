"""How well each set of layers predicts, beside the whole posterior: figures, and their replicates over images.

Images are resampled, the same for all sets, so that a difference between two sets has their common images taken out. An
AUROC is resampled by its placements (DeLong et al. 1988): the same but for terms of second order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wiu_pyro import metrics
from wiu_pyro.interventions.set_predictions import SetPrediction

__all__ = ["KINDS", "Scored", "counts_of", "scored"]

KINDS = ("restricted", "refitted")
Predicted = Mapping[tuple[str, str], SetPrediction]  # by kind and set


@dataclass(frozen=True)
class Scored:
    """The figures of all kinds and sets of one network.

    Attributes
    ----------
    value : dict of str to ndarray, shape (kinds, sets)
        By metric; NaN where there is no prediction.
    replicates : dict of str to ndarray, shape (kinds, sets, num_bootstrap)
    noise : dict of str to ndarray, shape (kinds, sets)
        Relative standard error, over the draws, of each set's variance as a share of the whole posterior's, by
        response; 0 where it is exact.
    """

    value: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]


def counts_of(num: int, num_ood: int, *, num_bootstrap: int, seed: int) -> dict[str, np.ndarray]:
    """Return how often each image is drawn in each replicate, by group of images."""
    rng = np.random.default_rng(seed)
    sizes = {"test": num, "ood": num_ood}
    return {name: metrics.pigeonhole_counts(size, num_bootstrap, rng=rng) for name, size in sizes.items() if size}


def scored(
    test: Predicted,
    ood: Predicted,
    labels: np.ndarray,
    *,
    sets: Sequence[str],
    counts: Mapping[str, np.ndarray],
    bins: int,
) -> Scored:
    """Return the metrics of every kind and set, with their bootstrap replicates.

    Parameters
    ----------
    test, ood : mapping of (kind, set) to SetPrediction
        Of the labelled images, and of those out of distribution; empty where there are none.
    labels : ndarray, shape (N,) or (N, outputs)
    sets : sequence of str
    counts : mapping of str to ndarray
        From `counts_of`.
    bins : int
        Of the calibration error.

    Returns
    -------
    Scored
    """
    value: dict[str, np.ndarray] = {}
    replicates: dict[str, np.ndarray] = {}
    shape, num_bootstrap = (len(KINDS), len(sets)), next(iter(counts.values())).shape[1]
    for (kind, name), prediction in test.items():
        place = KINDS.index(kind), list(sets).index(name)
        found = _figures(prediction, ood.get((kind, name)), labels, counts=counts, bins=bins)
        for metric, (figure, spread) in found.items():
            value.setdefault(metric, np.full(shape, np.nan))[place] = figure
            replicates.setdefault(metric, np.full((*shape, num_bootstrap), np.nan))[place] = spread
    noise = {name: np.zeros(shape) for name in ("output", "probability")}
    whole = test["restricted", sets[-1]]
    for (kind, name), prediction in test.items():
        for response, field in zip(noise, ("output_spread", "response_spread"), strict=True):
            pair = getattr(prediction, field), getattr(whole, field)
            noise[response][KINDS.index(kind), list(sets).index(name)] = _relative_error(*pair)
    return Scored(value, replicates, noise)


def _relative_error(spread: np.ndarray | None, whole: np.ndarray | None) -> float:
    """Return the standard error of log(mean spread / mean of the whole's), the same draws behind both."""
    if spread is None or whole is None or not spread.mean() > 0:
        return 0.0
    gap = spread / spread.mean() - whole / whole.mean()
    return float(gap.std(ddof=1) / len(gap) ** 0.5)


Figure = tuple[float, np.ndarray]


def _figures(
    test: SetPrediction,
    ood: SetPrediction | None,
    labels: np.ndarray,
    *,
    counts: Mapping[str, np.ndarray],
    bins: int,
) -> dict[str, Figure]:
    """Return each metric of one set: its value, and its replicates."""
    found = {metric: _mean(values, counts["test"]) for metric, values in _by_image(test, labels).items()}
    if test.entropy is None:
        return found
    labels = labels.reshape(len(labels))
    found["ece"] = (
        metrics.ece(test.mean, labels, bins=bins),
        metrics.ece_resampled(test.mean, labels, counts["test"], bins=bins),
    )
    for score in ("entropy", "mutual_information") if ood is not None else ():
        pair = [getattr(one, score) for one in (test, ood)]
        flags = np.repeat([False, True], [len(one) for one in pair])
        of_ood, of_test = metrics.auroc_placements(np.concatenate(pair), flags)
        one, other = _mean(of_ood, counts["ood"]), _mean(of_test, counts["test"])
        found[f"auroc_{score}"] = (one[0], one[1] + other[1] - one[0])
    return found


def _by_image(test: SetPrediction, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics that are means over images, image by image."""
    if test.entropy is None:
        squares = np.square(test.mean - labels.reshape(test.mean.shape)).sum(axis=1)
        return {"nll": -test.log_density, "squared_error": squares, "output_variance": test.output_variance}
    labels = labels.reshape(len(labels))  # (N, 1) of a Bernoulli likelihood
    wrong = ~metrics.correct(test.mean, labels)
    return {
        "nll": metrics.nll_pointwise(test.mean, labels),
        "brier": metrics.brier_pointwise(test.mean, labels),
        "error": wrong.astype(float),
        "output_variance": test.output_variance,
        "probability_variance": test.response_variance,
    }


def _mean(values: np.ndarray, counts: np.ndarray) -> Figure:
    mean = float(values.mean())
    return mean, mean + (values - mean).astype(np.float32) @ counts / len(values)
