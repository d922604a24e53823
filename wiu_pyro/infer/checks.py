"""Checks of data before anything is trained on them, so that a fault is named where it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import unwrap
from torch import nn

from wiu_pyro.errors import GuideError
from wiu_pyro.nn import Batches, BayesianNetwork, ModelStructure, evaluation_mode, inspect_model, run_at
from wiu_pyro.nn.checks import check_batch, check_finite, explained_run

__all__ = ["check_data", "check_guide", "check_new_data"]


def check_guide(model: Callable[..., Any], guide: AutoGuide) -> None:
    """Look whether a guide was made for the model that is to be fitted: it would train the other one's network.

    Parameters
    ----------
    model : callable
    guide : AutoGuide

    Raises
    ------
    GuideError
        If it was made for another module.
    """
    own, other = unwrap(model), unwrap(guide.model)
    if isinstance(own, nn.Module) and isinstance(other, nn.Module) and own is not other:
        raise GuideError(
            f"A guide must be made for the model it is fitted with, but this {type(guide).__name__} was made for "
            f"another {type(other).__name__}. Make it from this one: {type(guide).__name__}(model)."
        )


def check_data(model: Callable[..., Any], batches: Batches) -> ModelStructure:
    """Look at data and model together before a fit.

    Parameters
    ----------
    model : callable
    batches : Batches
        Tensors are checked whole, a DataLoader by its first batch.

    Returns
    -------
    ModelStructure

    Raises
    ------
    DataError
        If inputs are not finite or labels do not fit the network's output.
    ModelError
        If the network cannot take the inputs.
    WiuError
        What `inspect_model` says of the model.
    """
    first = next(iter(batches))
    whole = batches.source if isinstance(batches.source, tuple) else first
    check_finite(whole[0], "Inputs")
    with explained_run(first):
        structure = inspect_model(model, *(part.to(_device_of(model, part)) for part in first))
    check_batch(structure, whole)
    _check_num_data(model, structure, batches)
    return structure


def _device_of(model: Callable[..., Any], like: torch.Tensor) -> torch.device:
    buffers = getattr(model, "buffers", None)
    first = next(iter(buffers()), None) if buffers else None
    return like.device if first is None else first.device


def check_new_data(
    model: Callable[..., Any],
    structure: ModelStructure,
    weights: Mapping[str, torch.Tensor],
    *,
    parts: tuple[torch.Tensor, ...],
) -> None:
    """Look at data that a fitted model is to predict.

    Parameters
    ----------
    model : callable
    structure : ModelStructure
    weights : mapping of site to Tensor
        Weights to run the model at.
    parts : tuple of Tensor
        All inputs, and labels where there are any.

    Raises
    ------
    DataError
        As `check_batch`.
    ModelError
        If the network cannot take the inputs.
    WiuError
        What the model itself says of them.
    """
    check_batch(structure, parts)
    device = next(iter(weights.values())).device
    batch = tuple(part[:2].to(device) for part in parts)
    drawn = torch.random.fork_rng(devices=[])  # labels may be
    with explained_run(batch), torch.no_grad(), evaluation_mode(model), drawn:
        run_at(model, dict(weights), batch)


def _check_num_data(model: Callable[..., Any], structure: ModelStructure, batches: Batches) -> None:
    held = batches.num_data
    if held is None or abs(structure.num_data - held) <= 0.5:
        return
    todo = f"set num_data={held} to use what is there"
    if not isinstance(model, BayesianNetwork):
        todo = f"write it as pyro.plate('data', size={held}, subsample=x), which scales a batch x up to all of them"
    warnings.warn(
        f"The model's plate stands for {structure.num_data:g} data, but there are {held}. The posterior will be "
        f"that of {structure.num_data:g}; {todo}.",
        stacklevel=4,
    )
