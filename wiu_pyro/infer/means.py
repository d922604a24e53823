"""The means of a training: rates of groups of parameters, the precision of the network, data kept on the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from wiu_pyro.curvature import available_bytes
from wiu_pyro.errors import GuideError
from wiu_pyro.nn import Batches

__all__ = ["autocast", "give_own_rate", "kept_on_device"]

SHARE = 0.25  # of the device's free memory, that data may take


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a network runs at a precision: torch's autocast, or none for ``"float32"``."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=getattr(torch, precision))


def give_own_rate(optimiser: torch.optim.Optimizer, parameters: list[torch.Tensor], factor: float) -> None:
    """Let some of an optimiser's parameters have their learning rate multiplied; before its first step.

    Parameters
    ----------
    optimiser : Optimizer
    parameters : list of Tensor
    factor : float

    Raises
    ------
    GuideError
        If the optimiser has none of them.
    """
    own = {id(parameter) for parameter in parameters}
    moved = False
    for group in list(optimiser.param_groups):
        chosen = [parameter for parameter in group["params"] if id(parameter) in own]
        if not chosen:
            continue
        moved, rest = True, [parameter for parameter in group["params"] if id(parameter) not in own]
        faster = {**group, "params": chosen, "lr": factor * group["lr"]}
        if rest:
            group["params"] = rest
            optimiser.add_param_group(faster)
        else:
            group.update(faster)
    if not moved:
        raise GuideError(
            f"log_scale_rate is for guides that train log sds, but the update of this one ({type(optimiser).__name__}) "
            "has none. Leave it out, or use AutoMeanField."
        )


def kept_on_device(batches: Batches, device: torch.device) -> Batches:
    """Return batches whose tensors lie on a GPU from the start, where they take little of its free memory.

    Their order stays as it is. Datasets and DataLoaders are left as they are.

    Parameters
    ----------
    batches : Batches
    device : device

    Returns
    -------
    Batches
    """
    if device.type != "cuda" or not isinstance(batches.source, tuple):
        return batches
    size = sum(part.numel() * part.element_size() for part in batches.source)
    if size > SHARE * available_bytes(device):
        return batches
    moved = tuple(part.to(device) for part in batches.source)
    return Batches(moved, batches.batch_size, batches.generator, device)
