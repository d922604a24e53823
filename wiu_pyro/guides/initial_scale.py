"""The scale that a variational posterior starts at: a part of the prior's, small enough for the network to work.

A start at trained weights is lost where the noise of the weights is larger than what the network bears: a tenth of the
prior's scale is little for most networks, and too much for a deep one whose normalisation layers divide by the small
variances of channels that hardly vary. Of a few scales, the one is taken at which −ELBO is least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice

import torch

from wiu_pyro.errors import GuideError

__all__ = ["WIDEST_START", "check_init_scale", "least_loss_scale"]

WIDEST_START = 0.1  # of the prior's scale
SCALES = (WIDEST_START, 0.03, 0.01, 0.003, 0.001)
NUM_BATCHES = 4


def check_init_scale(init_scale: float | None) -> None:
    """Refuse an initial scale that is not positive; None leaves it to the data."""
    if init_scale is not None and not init_scale > 0:
        raise GuideError(f"init_scale must be positive, but is {init_scale}. Pass for example {WIDEST_START}.")


def least_loss_scale(
    put: Callable[[float], None], loss: Callable[..., torch.Tensor], batches: Iterable[tuple[torch.Tensor, ...]]
) -> float:
    """Put a guide at the initial scale, of those from 0.1 down to 0.001, at which its loss is least.

    The search goes down for as long as the loss falls; all scales are seen on the same batches with the same noise.

    Parameters
    ----------
    put : callable
        Puts the guide at a scale.
    loss : callable
        Of a batch, in nats, an estimate for the whole data.
    batches : iterable of tuple of Tensor
        Of which the first four are used.

    Returns
    -------
    float
        At which the guide is left.
    """
    seen = list(islice(batches, NUM_BATCHES))
    state = torch.get_rng_state()
    best, least = WIDEST_START, math.inf
    for scale in SCALES:
        put(scale)
        torch.set_rng_state(state)
        with torch.no_grad():
            found = math.fsum(loss(*batch).item() for batch in seen) / len(seen)
        if found > least:
            break
        if found < least:
            best, least = scale, found
    put(best)
    return best
