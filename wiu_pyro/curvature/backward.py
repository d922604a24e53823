"""Gradients of a network's outputs for several columns: what is held at once is bounded, however many there are."""

from __future__ import annotations

import sys
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
        Of the gradients at all layers' outputs, about: of one column, by which the data are divided; or of all columns
        where work on the inputs is shared by them.
    column_elements : int
        Of the gradients that are held at once, by which the columns are divided.
    alone : bool
        Whether each column's gradients are used alone.
    by_data : bool
        Whether data of a batch may go apart.
    sizes : list of int
        What passes have found of the gradients of a datum. A pass that goes on after a stop needs them to take the
        same parts.
    """

    elements: int
    column_elements: int
    alone: bool = True
    by_data: bool = True
    sizes: list[int] = field(default_factory=list, compare=False)

    @classmethod
    def fitting(cls, device: torch.device, *, alone: bool, joined: bool = True, by_data: bool = True) -> Portions:
        """Return what suits a device.

        Parameters
        ----------
        device : device
        alone : bool
            Whether each column's gradients are used alone; else work on the inputs is shared by the columns at hand.
        joined : bool
            Whether columns used alone are multiplied together all the same: larger products are faster. Without it
            each is used as it comes and nothing is copied.
        by_data : bool
            Whether data of a batch may go apart: not where labels are sampled for all of them.

        Returns
        -------
        Portions
        """
        if device.type != "cpu":
            return cls(GPU_GRADS, GPU_GRADS, alone=alone, by_data=False)
        if alone:
            return cls(
                sys.maxsize, CACHED_GRADS if joined else 1, by_data=False
            )  # many data and few columns: fewest calls
        return cls(2 * CACHED_GRADS, 16 * CACHED_GRADS, alone=False, by_data=by_data)

    @classmethod
    def whole(cls) -> Portions:
        """Return portions that take a batch and all its columns at once."""
        return cls(sys.maxsize, sys.maxsize, by_data=False)

    @property
    def rows(self) -> int:
        """The most data that go at once."""
        if not self.by_data:
            return sys.maxsize
        return max(FEWEST_ROWS, self.elements // max(1, self.sizes[-1])) if self.sizes else FIRST_ROWS

    def data_parts(self, batch: Batch, *, most: int | None = None) -> Iterator[Batch]:
        """Yield a batch in parts; until `note` has been called they are small.

        Parameters
        ----------
        batch : tuple of Tensor
        most : int, optional
            Data of a part; `rows` when None.

        Yields
        ------
        tuple of Tensor
        """
        start = 0
        while start < len(batch[0]):
            stop = min(len(batch[0]), start + (most or self.rows))
            yield tuple(part[start:stop] for part in batch)
            start = stop

    def note(self, size: int, num_columns: int) -> None:
        """Note how many elements the gradients of one column have for a datum."""
        self.sizes[:] = [size if self.alone else size * num_columns]

    def column_parts(self, columns: Columns, size: int) -> Iterator[torch.Tensor]:
        """Yield columns in parts, shapes (columns, batch, outputs); `size` is that of the gradients of one column."""
        step = max(1, self.column_elements // max(1, size))
        for start in range(0, len(columns), step):
            yield columns[start : start + step]


class Columns(Protocol):
    """What is passed backwards: a Tensor of shape (columns, batch, outputs), or something that is sliced like one."""

    def __len__(self) -> int:
        """Return the number of columns."""

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Return some columns, shape (columns, batch, outputs)."""


class HessianColumns:
    """The columns of a likelihood's square root Hessian, made when they are asked for: all at once where they are few.

    Parameters
    ----------
    likelihood : OutputLikelihood
    """

    def __init__(self, likelihood: OutputLikelihood) -> None:
        self.likelihood = likelihood
        self._all: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of columns."""
        return self.likelihood.num_columns

    def __getitem__(self, index: slice) -> torch.Tensor:
        """Return some columns, shape (columns, batch, outputs)."""
        if self._all is None:
            if len(self) * self.likelihood.output.numel() > CACHED_GRADS:
                return self.likelihood.sqrt_hessian(index)
            self._all = self.likelihood.sqrt_hessian()
        return self._all[index]


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
                    # a datum's columns side by side: a layer's products take them together
                    shape = (len(grad), len(columns), *grad.shape[1:])
                    found[place] = _room(buffers, place, shape, like=grad).transpose(0, 1)
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
