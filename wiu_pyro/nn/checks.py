"""Whether a batch can be used with a model: its values and labels, and what a failed run says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wiu_pyro.errors import DataError, ModelError, WiuError
from wiu_pyro.nn.structure import ModelStructure

__all__ = ["check_batch", "check_finite", "explained_run"]

Batch = tuple[torch.Tensor, ...]
DTYPES_DIFFER = re.compile(r"dtype|scalar type|(weight|bias) type")  # in what torch says


def check_batch(structure: ModelStructure, batch: Batch) -> None:
    """Check the labels of data against what the network puts out.

    Parameters
    ----------
    structure : ModelStructure
    batch : tuple of Tensor
        Inputs, and labels where there are any.

    Raises
    ------
    DataError
        If inputs are not finite, or labels are not whole numbers, out of range, or not finite.
    """
    check_finite(batch[0], "Inputs")
    if len(batch) < 2:
        return
    if structure.likelihood != "categorical" or batch[1].dim() != 1:
        check_finite(batch[1], "Labels")
        return
    _check_whole(batch[1])
    low, high = int(batch[1].min()), int(batch[1].max())
    if low < 0 or high >= structure.num_outputs:
        raise DataError(
            f"Labels must lie in 0 … {structure.num_outputs - 1}, one for each of the network's "
            f"{structure.num_outputs} outputs, but they range from {low} to {high}. "
            f"Give the network {high + 1} outputs, or count labels from 0."
        )


def check_finite(values: torch.Tensor, what: str) -> None:
    """Raise DataError unless all values are finite; `what` begins the message."""
    if values.is_floating_point() and not torch.isfinite(values).all():
        broken = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero().flatten()
        raise DataError(
            f"{what} must be finite, but {len(broken)} of {len(values)} hold NaN or infinity, the first at index "
            f"{broken[0].item()}. Remove or repair them."
        )


def _check_whole(labels: torch.Tensor) -> None:
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise DataError(
            f"Class labels must be whole numbers, but the labels have dtype {labels.dtype} and values such as "
            f"{labels[labels != labels.round()].flatten()[0].item():g}. Pass integers, or another likelihood."
        )


@contextmanager
def explained_run(batch: Batch) -> Iterator[None]:
    """Say what it means for model and data when torch or Pyro fails in a first run of a model on a batch.

    Parameters
    ----------
    batch : tuple of Tensor
        What the model is called with inside.

    Yields
    ------
    None

    Raises
    ------
    DataError
        If inputs or labels are not finite, do not fit the model's output, or have not the weights' dtype.
    ModelError
        If the model cannot be called with the batch, or its output is not finite.
    WiuError
        What the toolkit itself says inside.
    OutOfMemoryError
        As torch raises it.
    """
    try:
        yield
    except (WiuError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        check_finite(batch[0], "Inputs")
        explained = _explained(error, batch)
        raise explained from error


def _explained(error: Exception, batch: Batch) -> WiuError:
    said = str(error)
    text = said.splitlines()[0] if said else type(error).__name__
    if len(batch) > 1 and ("support" in said or "Expected value argument" in said):
        labels = batch[1]
        check_finite(labels, "Labels")
        _check_whole(labels)
        return DataError(
            f"The labels do not fit the model's output: they range from {labels.min().item():g} to "
            f"{labels.max().item():g} ({text}). Give the network one output per class, labels counted from 0."
        )
    if "found invalid values" in said:
        return ModelError(
            f"The network's output must be finite, but is not on the first batch ({text}). "
            "Check its weights, and the range of the inputs."
        )
    if DTYPES_DIFFER.search(text) and "cuda" not in text:
        return DataError(
            f"Inputs must have the dtype of the network's weights, but they are {batch[0].dtype} ({text}). "
            "Convert them, x.float() for weights of float32, or the network, net.double()."
        )
    if isinstance(error, TypeError) and "positional argument" in text:
        return ModelError(
            f"A Pyro model is called with inputs and labels, which this one does not take ({text}). "
            "Wrap a plain network: model = wiu_pyro.nn.BayesianNetwork(net)."
        )
    shapes = ", ".join(str(tuple(part.shape)) for part in batch)
    return ModelError(
        f"The model could not be run on a batch of shapes {shapes}: {text}. Check the network's input size."
    )
