"""The states of all random number generators that a training draws from, as plain values and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from wiu_pyro.nn import Batches

__all__ = ["random_states", "restore_random_states"]


def random_states(batches: Batches, device: torch.device) -> dict[str, Any]:
    """Return the states of torch's, NumPy's and Python's generators, and of those that shuffle the data.

    Parameters
    ----------
    batches : Batches
    device : device
        A GPU's generator as well.

    Returns
    -------
    dict
        Of values that ``torch.load(weights_only=True)`` reads.
    """
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the global state is what is kept)
    states = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "order": [generator.get_state() for generator in _generators(batches)],
    }
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(states: dict[str, Any], batches: Batches, device: torch.device) -> None:
    """Put the generators into states that `random_states` gave."""
    torch.set_rng_state(states["torch"].cpu())
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    for generator, state in zip(_generators(batches), states["order"], strict=True):
        generator.set_state(state.cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def _generators(batches: Batches) -> list[torch.Generator]:
    """Return the generators that the data's own order is drawn by, each once."""
    loader = batches.source
    holders = [batches, loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    holders.append(getattr(holders[-1], "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())
