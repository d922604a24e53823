"""The means of a training: rates of groups of parameters, the precision of the network, the layout of images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.nn import weight_module

if TYPE_CHECKING:
    from wiu_pyro.infer.config import FitConfig

__all__ = ["autocast", "give_own_rate", "lay_channels_last"]


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


def lay_channels_last(config: FitConfig, model: Callable[..., Any], device: torch.device) -> bool:
    """Return whether images are laid out with their channels last: as asked, else where it saves time.

    On two CPU cores a training step of VGG-11 with BatchNorm is a fifth shorter by it, one of LeNet or of VGG without
    BatchNorm takes as long as before.

    Parameters
    ----------
    config : FitConfig
    model : callable
    device : device

    Returns
    -------
    bool
    """
    if config.channels_last is not None:
        return config.channels_last
    if device.type != "cpu":
        return config.precision == "bfloat16"
    root = weight_module(model)
    return root is not None and any(isinstance(module, torch.nn.BatchNorm2d) for module in root.modules())
