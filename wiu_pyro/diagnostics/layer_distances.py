"""How far the distributions of two layers over their weights lie apart: Cliff's delta and the Wasserstein distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wiu_pyro import metrics
from wiu_pyro.diagnostics.units import Moments, contraction, log_signal_to_noise, pooled_moments

__all__ = ["EXACT_WEIGHTS", "QUANTITIES", "layer_distances"]

QUANTITIES: dict[str, Callable[[Moments], np.ndarray]] = {"contraction": contraction, "log_snr": log_signal_to_noise}
EXACT_WEIGHTS = 20_000  # of a layer, above which as many quantiles stand in for them


def layer_distances(
    idata: Any, layers: Sequence[str], pairs: Sequence[tuple[int, int]], *, chain: int
) -> dict[str, np.ndarray]:
    """Return effect sizes between pairs of layers of one network, over all weights that have an uncertainty.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layers : sequence of str
    pairs : sequence of (int, int)
        Places in `layers`.
    chain : int
        Position along `chain`.

    Returns
    -------
    dict of str to ndarray, shape (quantity, pair)
        ``cliffs_delta`` and ``wasserstein``; NaN where a layer has no such weight.
    """
    found = {name: np.full((len(QUANTITIES), len(pairs)), np.nan) for name in ("cliffs_delta", "wasserstein")}
    grids = [_grids(pooled_moments(idata, layer, chain=chain)) for layer in layers]
    for quantity in range(len(QUANTITIES)):
        for place, (first, second) in enumerate(pairs):
            one, other = grids[first][quantity], grids[second][quantity]
            if one.size and other.size:
                found["cliffs_delta"][quantity, place] = metrics.cliffs_delta(one, other)
                found["wasserstein"][quantity, place] = metrics.wasserstein(one, other)
    return found


def _grids(parameters: list[Moments]) -> list[np.ndarray]:
    """Return each quantity over a layer's free weights, sorted, thinned to quantiles where they are many."""
    grids = []
    for values in QUANTITIES.values():
        known = np.concatenate([values(part)[part.free] for part in parameters])
        grids.append(metrics.quantile_grid(known, EXACT_WEIGHTS) if known.size else known)
    return grids
