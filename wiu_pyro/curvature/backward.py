"""Gradients of a network's outputs for several columns: what is held at once is bounded, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from wiu_pyro.curvature.likelihood import OutputLikelihood

__all__ = ["GRAD_ELEMENTS", "Columns", "HessianColumns", "column_parts", "gradients"]

# Gradients of all layers held at once: 8 MB in float32 on the CPU, within reach of its cache; 1 GB on a GPU
GRAD_ELEMENTS = {"cpu": 2**21}
GPU_GRAD_ELEMENTS = 2**28


class Columns(Protocol):
    """What is passed backwards: a Tensor of shape (columns, batch, outputs), or something that is sliced like one."""

    def __len__(self) -> int:
        """Return the number of columns."""

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Return some columns, shape (columns, batch, outputs)."""


class HessianColumns:
    """The columns of a likelihood's square root Hessian, made when they are asked for.

    Parameters
    ----------
    likelihood : OutputLikelihood
    """

    def __init__(self, likelihood: OutputLikelihood) -> None:
        self.likelihood = likelihood

    def __len__(self) -> int:
        """Return the number of columns."""
        return self.likelihood.num_columns

    def __getitem__(self, index: slice) -> torch.Tensor:
        """Return some columns, shape (columns, batch, outputs)."""
        return self.likelihood.sqrt_hessian(index)


def column_parts(columns: Columns, outputs: Sequence[torch.Tensor], *, bounded: bool) -> Iterator[torch.Tensor]:
    """Yield the columns in parts whose gradients are held at once.

    Parameters
    ----------
    columns : Columns
    outputs : sequence of Tensor
        Of the layers: as large as a column's gradients.
    bounded : bool
        Else all columns are one part.

    Yields
    ------
    Tensor, shape (columns, batch, outputs)
    """
    step = max(1, len(columns))
    if bounded and outputs:
        most = GRAD_ELEMENTS.get(outputs[0].device.type, GPU_GRAD_ELEMENTS)
        step = min(step, max(1, most // sum(output.numel() for output in outputs)))
    for start in range(0, len(columns), step):
        yield columns[start : start + step]


def gradients(
    output: torch.Tensor, layer_outputs: Sequence[torch.Tensor], columns: torch.Tensor
) -> list[torch.Tensor | None]:
    """Return the gradients at layers' outputs for each column; the graph is kept.

    Parameters
    ----------
    output : Tensor, shape (batch, outputs)
        Of the network.
    layer_outputs : sequence of Tensor, shapes (batch, *output_shape)
    columns : Tensor, shape (columns, batch, outputs)

    Returns
    -------
    list of Tensor or None, shapes (columns, batch, *output_shape)
        None for a layer that does not shape the output.
    """
    if output.device.type != "cpu":
        batched = torch.autograd.grad(
            output, layer_outputs, columns, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        return list(batched)
    # on a processor one column after another is faster: no copies of what the graph has saved
    found = [
        torch.autograd.grad(output, layer_outputs, column, retain_graph=True, allow_unused=True) for column in columns
    ]
    if len(found) == 1:
        return [None if grad is None else grad[None] for grad in found[0]]
    return [None if grads[0] is None else torch.stack(grads) for grads in zip(*found, strict=True)]
