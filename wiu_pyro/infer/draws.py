"""Draws of all weights from a guide, one at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import poutine

from wiu_pyro.errors import GuideError
from wiu_pyro.infer.seeding import draw_seed, seeded

__all__ = ["draw_weights"]


def draw_weights(
    fit: Any, *, num_samples: int, seed: int = 0, batch: tuple[torch.Tensor, ...] = ()
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield draws of the weights; the same seed gives the same draws, however often they are asked for.

    Parameters
    ----------
    fit : Fit or AutoGuide
    num_samples : int
        Number of draws, at least 1.
    seed : int
    batch : tuple of Tensor
        Only for a guide that has not seen data yet.

    Yields
    ------
    dict of site to Tensor
        One value for each site, in the site's shape.

    Raises
    ------
    GuideError
        If `num_samples` is not positive.
    """
    if num_samples < 1:
        raise GuideError(f"num_samples must be at least 1, but is {num_samples}. Pass for example 200.")
    guide = getattr(fit, "guide", fit)
    tensors = [*guide.parameters(), *guide.buffers()] if isinstance(guide, torch.nn.Module) else []
    device = tensors[0].device if tensors else None
    for index in range(num_samples):
        with seeded(draw_seed(seed, index), device), torch.no_grad(), poutine.block():
            # Pyro's parameters go by name in one store; keep this guide's apart
            with pyro.get_param_store().scope():
                values = guide(*batch)
        yield {name: value.detach() for name, value in values.items() if not name.startswith("_")}
