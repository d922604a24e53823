"""Which weights of one network's layer the data left at the prior, counted by output and input.

References
----------
Kullback and Leibler (1951), On information and sufficiency (a divergence no change of units or of scale moves).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wiu_pyro import metrics
from wiu_pyro.diagnostics.units import Moments

__all__ = ["Limits", "Tally", "tallied"]

BLOCK = 1_000_000  # weights worked on at once


@dataclass(frozen=True)
class Limits:
    """What counts as at the prior.

    Attributes
    ----------
    conditional : bool
        Whether the conditional sd is taken.
    within : float
        Of the prior sd: how far sd and mean may be off.
    kl_below : float
        Nats.
    """

    conditional: bool
    within: float
    kl_below: float


@dataclass(frozen=True)
class Tally:
    """Counts over one parameter.

    Attributes
    ----------
    known, unidentified, at_prior : ndarray, shape (outputs, inputs), float32
        For each output and input, how many weights they share that have a posterior, how many of these have a KL below
        the limit, and how many a mean and an sd near the prior's.
    kl : ndarray, shape (N,), float32
        Of each known weight, nats.
    size : int
        Weights in all.
    """

    known: np.ndarray
    unidentified: np.ndarray
    at_prior: np.ndarray
    kl: np.ndarray
    size: int


def tallied(moments: Moments, limits: Limits) -> Tally:
    """Return the counts of one parameter, worked out in blocks of outputs.

    Parameters
    ----------
    moments : Moments
        Of any shape; the first axis is taken for outputs, the second for inputs.
    limits : Limits

    Returns
    -------
    Tally
    """
    sd = moments.sd_of(conditional=limits.conditional)
    shape = (*moments.mean.shape, 1, 1)[:2]
    arrays = [part.reshape(*shape, -1) for part in (moments.mean, sd, moments.prior_mean, moments.prior_sd)]
    rows = max(1, BLOCK // max(1, arrays[0][0].size))
    blocks = [_block([part[start : start + rows] for part in arrays], limits) for start in range(0, shape[0], rows)]
    known, unidentified, at_prior, kl = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Tally(known, unidentified, at_prior, kl, moments.mean.size)


def _block(arrays: list[np.ndarray], limits: Limits) -> tuple[np.ndarray, ...]:
    mean, sd, prior_mean, prior_sd = (part.astype(np.float64) for part in arrays)  # (outputs, inputs, rest)
    known = np.isfinite(mean) & np.isfinite(sd) & (sd > 0)
    mean, sd = np.where(known, mean, prior_mean), np.where(known, sd, prior_sd)
    kl = metrics.kl_normal(mean, sd, prior_mean=prior_mean, prior_sd=prior_sd)
    near = (np.abs(sd - prior_sd) <= limits.within * prior_sd) & (np.abs(mean - prior_mean) <= limits.within * prior_sd)
    cells = (np.sum(part, axis=2, dtype=np.float32) for part in (known, known & (kl <= limits.kl_below), known & near))
    return *cells, kl[known].astype(np.float32)
