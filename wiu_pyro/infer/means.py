"""The means of a training: rates of groups of parameters, the precision of the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from wiu_pyro.errors import GuideError

__all__ = ["autocast", "give_own_rate"]


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
