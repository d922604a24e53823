"""Gradients of a network's outputs for several columns: what is held at once is bounded, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from wiu_pyro.curvature.likelihood import OutputLikelihood

__all__ = ["Columns", "HessianColumns", "Portions", "gradients"]

Batch = tuple[torch.Tensor, ...]

CACHED_GRADS = 2**21  # elements: 8 MB in float32, within reach of a processor's cache
GPU_GRADS = 2**28  # 1 GB
FIRST_ROWS = 32  # data of the first part, before it is known how large their gradients are
FEWEST_ROWS = 32  # a backward pass of fewer takes as long


@dataclass(frozen=True)
class Portions:
    """How much of a batch goes backwards at once.

    Attributes
    ----------
    elements : int
        Of the gradients at all layers' outputs, about.
    by_data : bool
        Take few data and all their columns, else all data and few columns: where work on the inputs is shared by the
        columns, the former; where each column's gradients are used alone, the latter has less to do.
    sizes : list of int
        What passes have found of the gradients of all columns of a datum. A pass that goes on after a stop needs them
        to take the same parts.
    """

    elements: int
    by_data: bool = False
    sizes: list[int] = field(default_factory=list, compare=False)

    @classmethod
    def fitting(cls, device: torch.device, *, alone: bool) -> Portions:
        """Return what suits a device; `alone` says whether each column's gradients are used alone."""
        if device.type != "cpu":
            return cls(GPU_GRADS)
        return cls(CACHED_GRADS) if alone else cls(2 * CACHED_GRADS, by_data=True)

    def data_parts(self, batch: Batch, sizes: list[int]) -> Iterator[Batch]:
        """Yield a batch in parts.

        Parameters
        ----------
        batch : tuple of Tensor
        sizes : list of int
            Elements of the gradients of all columns of a datum; of its last entry each part is cut, and whoever uses
            the parts appends to it. While it is empty, parts are small.

        Yields
        ------
        tuple of Tensor
        """
        start = 0
        while start < len(batch[0]):
            rows = max(FEWEST_ROWS, self.elements // max(1, sizes[-1])) if sizes else FIRST_ROWS
            stop = start + rows if self.by_data else len(batch[0])
            yield tuple(part[start:stop] for part in batch)
            start = stop

    def column_parts(self, columns: Columns, size: int) -> Iterator[torch.Tensor]:
        """Yield columns in parts, shapes (columns, batch, outputs); `size` is that of the gradients of one column."""
        most = self.elements if not self.by_data else 8 * self.elements
        step = max(1, most // max(1, size))
        for start in range(0, len(columns), step):
            yield columns[start : start + step]


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


def gradients(
    output: torch.Tensor,
    layer_outputs: Sequence[torch.Tensor],
    columns: torch.Tensor,
    *,
    buffers: dict[int, torch.Tensor] | None = None,
) -> list[torch.Tensor | None]:
    """Return the gradients at layers' outputs for each column; the graph is kept.

    Parameters
    ----------
    output : Tensor, shape (batch, outputs)
        Of the network.
    layer_outputs : sequence of Tensor, shapes (batch, *output_shape)
    columns : Tensor, shape (columns, batch, outputs)
    buffers : dict of int to Tensor, optional
        Memory to write into where it is large enough, by layer; filled here, and written over by the next call.

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
    found: list[torch.Tensor | None] = [None] * len(layer_outputs)
    for number, column in enumerate(columns):
        grads = torch.autograd.grad(output, layer_outputs, column, retain_graph=True, allow_unused=True)
        for place, grad in enumerate(grads):
            if grad is not None and len(columns) == 1:
                found[place] = grad[None]
            elif grad is not None:
                if number == 0:
                    found[place] = _room(buffers, place, (len(columns), *grad.shape), like=grad)
                found[place][number].copy_(grad)  # type: ignore[index]
    return found


def _room(
    buffers: dict[int, torch.Tensor] | None, place: int, shape: tuple[int, ...], *, like: torch.Tensor
) -> torch.Tensor:
    if buffers is None:
        return like.new_empty(shape)
    numel = torch.Size(shape).numel()
    if place not in buffers or buffers[place].numel() < numel or buffers[place].dtype != like.dtype:
        buffers[place] = like.new_empty(numel)
    return buffers[place][:numel].view(shape)
