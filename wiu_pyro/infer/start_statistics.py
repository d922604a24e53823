"""The running statistics that the training of a distribution leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.guides.running_statistics import recompute_running_statistics
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import Batches

__all__ = ["settle_at_draws"]


def settle_at_draws(model: Callable[..., Any], guide: AutoGuide, batches: Batches, device: torch.device) -> None:
    """Let BatchNorm hold the mean statistics of one pass over the data, with a draw of the guide for each batch.

    At the guide's centre, a dead channel has no variance, and BatchNorm would blow the noise of its weights up by
    hundreds in each layer. The same guide and data give the same statistics.

    Parameters
    ----------
    model : callable
        A Pyro model.
    guide : AutoGuide
        Where its training starts.
    batches : Batches
    device : device
    """
    plain = replace(batches, augment=None, generator=None)
    with seeded(0, device), torch.no_grad():
        recompute_running_statistics(model, lambda batch: guide(*batch), plain)
