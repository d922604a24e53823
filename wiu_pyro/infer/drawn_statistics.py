"""BatchNorm in a network whose weights are drawn: where its training starts, and the running statistics it takes.

Each batch's own statistics tie an image's class to the others of its batch, and one network drawn from a wide posterior
has other statistics than the next. With running ones BatchNorm is a fixed layer, for which the mean of the statistics
over draws is the natural choice. It moves with the distribution: held where the training starts, activations explode in
a deep network as its posterior widens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.running_statistics import move_running_statistics, recompute_running_statistics
from wiu_pyro.infer.scale_free import at_prior_scale
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import Batches, ModelStructure

__all__ = ["follow_draws", "free_scales", "settle_at_draws"]

LEAST_DRAWS = 50  # behind the statistics that a training begins and ends with
EVERY = 5  # steps between two draws that the statistics are moved by: at most a tenth of a training's time
PART = 0.1  # of the way, as torch's own momentum


def free_scales(guide: NetworkGuide, structure: ModelStructure, batches: Batches) -> None:
    """Move a guide that is to be trained to weights of the same network at the scale of their prior.

    Parameters
    ----------
    guide : NetworkGuide
        At its start.
    structure : ModelStructure
        Of the guide's model.
    batches : Batches
    """
    batch, point = next(iter(_shuffled(batches))), guide.point_estimate()
    grown = at_prior_scale(guide.model, structure, point, batch, log_likelihood=guide.log_likelihood)
    guide.start_at(grown)


def settle_at_draws(model: Callable[..., Any], guide: AutoGuide, batches: Batches, device: torch.device) -> None:
    """Let BatchNorm hold the mean statistics over draws of the guide and all data, a draw for each batch.

    At the guide's centre, a dead channel has no variance, and BatchNorm would blow the noise of its weights up by
    hundreds in each layer. The same guide and data give the same statistics.

    Parameters
    ----------
    model : callable
        A Pyro model.
    guide : AutoGuide
    batches : Batches
        Tensors are shuffled, so that sorted ones do not make batches of one class, which vary too little.
    device : device
    """
    with seeded(0, device), torch.no_grad():
        recompute_running_statistics(model, lambda batch: guide(*batch), _enough(_shuffled(batches)))


def follow_draws(
    model: Callable[..., Any], guide: AutoGuide, batch: tuple[torch.Tensor, ...], step: int, device: torch.device
) -> None:
    """Every few steps of a training, move BatchNorm's statistics towards those of a draw of the guide on a batch.

    Parameters
    ----------
    model : callable
        A Pyro model.
    guide : AutoGuide
    batch : tuple of Tensor
    step : int
        From 0; the random numbers of the draw depend on nothing else.
    device : device
    """
    if step % EVERY == 0:
        with seeded(step, device), torch.no_grad():
            move_running_statistics(model, guide(*batch), batch, by=PART)


def _shuffled(batches: Batches) -> Batches:
    return replace(batches, augment=None, generator=torch.Generator().manual_seed(0))


def _enough(batches: Batches) -> Iterator[tuple[torch.Tensor, ...]]:
    """Give all data, again and again until the batches are enough."""
    count = 0
    while count < LEAST_DRAWS:
        for batch in batches:
            yield batch
            count += 1
