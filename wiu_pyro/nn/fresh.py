"""Fresh weights for a network that may be trained already: what its modules' own ``reset_parameters`` gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import pyro
import torch
from torch import nn

from wiu_pyro.errors import ModelError
from wiu_pyro.nn.structure import weight_module

__all__ = ["fresh_weights"]

RESETS = ("reset_parameters", "_reset_parameters")  # torch's attention and transformers have the second


def fresh_weights(
    model: Callable[..., Any],
    sites: Collection[str],
    *,
    init: Callable[[nn.Module], Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Return new initial values of all that a network holds: weights, parameters without a prior, running statistics.

    Each module's ``reset_parameters`` is called on a copy, children before their parents; the network itself stays as
    it is. Random numbers are taken from the global state.

    Parameters
    ----------
    model : callable
        A Pyro model.
    sites : collection of str
        Names of its latent sites. Those that the network holds no tensor for, as a `PyroSample`, are left to the guide.
    init : callable, optional
        Takes the network's copy and gives it new weights in place, instead of ``reset_parameters``.

    Returns
    -------
    dict of str to Tensor
        By dotted path, as `unsampled` names them; empty for a model that is no module.

    Raises
    ------
    ModelError
        If a module holds weights and has no ``reset_parameters``.

    Examples
    --------
    >>> net = nn.Linear(2, 1)
    >>> sorted(fresh_weights(net, ["weight", "bias"]))
    ['bias', 'weight']
    """
    root = weight_module(model)
    if root is None:
        return {}
    other = _with_parameters(copy.deepcopy(root), sites)
    with torch.no_grad(), pyro.poutine.block():
        if init is not None:
            init(other)
        else:
            _reset(other)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    return {name: value.detach().clone() for name, value in tensors.items()}


def _with_parameters(net: nn.Module, sites: Collection[str]) -> nn.Module:
    """Turn weights held as buffers into parameters, which is what ``reset_parameters`` of some modules looks for."""
    for name in [name for name, _ in net.named_buffers() if name in sites]:
        path, _, parameter = name.rpartition(".")
        module = net.get_submodule(path)
        value = getattr(module, parameter).detach().clone()
        delattr(module, parameter)
        module.register_parameter(parameter, nn.Parameter(value))
    return net


def _reset(root: nn.Module) -> None:
    modules = dict(root.named_modules())
    for path in sorted(modules, key=lambda name: (-_depth(name), name)):  # a parent's own scheme has the last word
        module = modules[path]
        held = [name for name, value in module._parameters.items() if value is not None]
        if not held and getattr(module, "_pyro_samples", None):
            continue  # its weights are sampled, and start where the guide says
        reset = next((getattr(module, name) for name in RESETS if callable(getattr(module, name, None))), None)
        if held and (reset is None or getattr(module, "_pyro_params", None)):
            why = "has no reset_parameters()" if reset is None else "constrains its parameters (PyroParam)"
            raise ModelError(
                f"Fresh weights are needed for '{f'{path}.{held[0]}' if path else held[0]}', but its module "
                f"({type(module).__name__}) {why}. Give the class a method reset_parameters() that draws them anew, or "
                "pass init=, a function that gives a copy of the network new weights in place."
            )
        if reset is not None:
            reset()


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0
