"""Checks of data before anything is trained on them, so that a fault is named where it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from wiu_pyro.errors import DataError, ModelError, WiuError
from wiu_pyro.nn import Batches, ModelStructure, evaluation_mode, inspect_model, run_at

__all__ = ["check_batch", "check_data", "check_new_data"]


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
    _check_finite(whole[0], "Inputs")
    try:
        structure = inspect_model(model, *(part.to(_device_of(model, part)) for part in first))
    except WiuError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        _check_labels_are_whole(whole)
        explained = _explained(error, first)
        raise explained from error
    check_batch(structure, whole)
    _check_num_data(structure, batches)
    return structure


def _explained(error: Exception, batch: tuple[torch.Tensor, ...]) -> Exception:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "support" in str(error) or "Expected value argument" in str(error):
        labels = batch[1]
        return DataError(
            f"The labels do not fit the model's output: they range from {labels.min().item():g} to "
            f"{labels.max().item():g} ({text}). Give the network one output per class, labels counted from 0."
        )
    if "found invalid values" in str(error):
        return ModelError(
            f"The network's output must be finite, but is not on the first batch ({text}). "
            "Check its weights, and the range of the inputs."
        )
    shapes = ", ".join(str(tuple(part.shape)) for part in batch)
    return ModelError(
        f"The model could not be run on a batch of shapes {shapes}: {text}. Check the network's input size."
    )


def _device_of(model: Callable[..., Any], like: torch.Tensor) -> torch.device:
    buffers = getattr(model, "buffers", None)
    first = next(iter(buffers()), None) if buffers else None
    return like.device if first is None else first.device


def check_batch(structure: ModelStructure, batch: tuple[torch.Tensor, ...]) -> None:
    """Check the labels of data against what the network puts out.

    Parameters
    ----------
    structure : ModelStructure
    batch : tuple of Tensor

    Raises
    ------
    DataError
        If inputs are not finite, or labels are not whole numbers, out of range, or not finite.
    """
    _check_finite(batch[0], "Inputs")
    if len(batch) < 2:
        return
    if structure.likelihood != "categorical" or batch[1].dim() != 1:
        _check_finite(batch[1], "Labels")
        return
    _check_labels_are_whole(batch)
    low, high = int(batch[1].min()), int(batch[1].max())
    if low < 0 or high >= structure.num_outputs:
        raise DataError(
            f"Labels must lie in 0 … {structure.num_outputs - 1}, one for each of the network's "
            f"{structure.num_outputs} outputs, but they range from {low} to {high}. "
            f"Give the network {high + 1} outputs, or count labels from 0."
        )


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
    try:
        with torch.no_grad(), evaluation_mode(model), torch.random.fork_rng(devices=[]):  # labels may be drawn
            run_at(model, dict(weights), batch)
    except WiuError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        explained = _explained(error, batch)
        raise explained from error


def _check_labels_are_whole(batch: tuple[torch.Tensor, ...]) -> None:
    labels = batch[1]
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise DataError(
            f"Class labels must be whole numbers, but the labels have dtype {labels.dtype} and values such as "
            f"{labels[labels != labels.round()].flatten()[0].item():g}. Pass integers, or another likelihood."
        )


def _check_finite(x: torch.Tensor, what: str) -> None:
    if x.is_floating_point() and not torch.isfinite(x).all():
        broken = (~torch.isfinite(x)).reshape(len(x), -1).any(1).nonzero().flatten()
        raise DataError(
            f"{what} must be finite, but {len(broken)} of {len(x)} hold NaN or infinity, the first at index "
            f"{broken[0].item()}. Remove or repair them."
        )


def _check_num_data(structure: ModelStructure, batches: Batches) -> None:
    held = batches.num_data
    if held is not None and abs(structure.num_data - held) > 0.5:
        warnings.warn(
            f"The model's plate stands for {structure.num_data:g} data, but there are {held}. The posterior will be "
            f"that of {structure.num_data:g}; set num_data={held} to use what is there.",
            stacklevel=4,
        )
