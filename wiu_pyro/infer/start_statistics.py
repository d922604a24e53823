"""The running statistics that the training of a distribution leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.guides.running_statistics import recompute_running_statistics
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import Batches

__all__ = ["settle_at_draws"]

LEAST_DRAWS = 50


def settle_at_draws(model: Callable[..., Any], guide: AutoGuide, batches: Batches, device: torch.device) -> None:
    """Let BatchNorm hold the mean statistics over draws of the guide and all data, a draw for each batch.

    At the guide's centre, a dead channel has no variance, and BatchNorm would blow the noise of its weights up by
    hundreds in each layer. The same guide and data give the same statistics.

    Parameters
    ----------
    model : callable
        A Pyro model.
    guide : AutoGuide
        Where its training starts.
    batches : Batches
        Tensors are shuffled, so that sorted ones do not make batches of one class, which vary too little.
    device : device
    """
    shuffled = replace(batches, augment=None, generator=torch.Generator().manual_seed(0))
    with seeded(0, device), torch.no_grad():
        recompute_running_statistics(model, lambda batch: guide(*batch), _enough(shuffled))


def _enough(batches: Batches) -> Iterator[tuple[torch.Tensor, ...]]:
    """Give all data, again and again until the batches are enough."""
    count = 0
    while count < LEAST_DRAWS:
        for batch in batches:
            yield batch
            count += 1
