"""`LayerRule`: a layer's parameters as one vector, and their per-sample Jacobian."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn
from typing_extensions import override

__all__ = ["MAX_ELEMENTS", "FlatRule", "LayerRule"]

MAX_ELEMENTS = 2**24  # elements of one chunk of per-sample Jacobians: 64 MB in float32


class LayerRule(ABC):
    """One layer's parameters as a flat vector, and its Jacobian from what went in and what came back.

    Parameters
    ----------
    module : Module
    shapes : dict of str to tuple of int
        Shapes of those of its parameters that have a posterior, by name (``"weight"``, ``"bias"``).
    """

    def __init__(self, module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
        self.module = module
        self.shapes = shapes
        self.numel = sum(torch.Size(shape).numel() for shape in shapes.values())

    @abstractmethod
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Put parameters of shape (..., *shape) into vectors of shape (..., numel)."""

    @abstractmethod
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take vectors of shape (..., numel) apart into parameters of shape (..., *shape)."""

    @abstractmethod
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return per-sample gradients.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        grads : Tensor, shape (columns, batch, *output_shape)
            Gradients with respect to the layer's output.

        Returns
        -------
        Tensor, shape (batch, columns, numel)
        """

    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return the squares of the per-sample gradients, summed over batch and columns, shape (numel,)."""
        step = max(1, MAX_ELEMENTS // (grads.shape[0] * self.numel))
        total = grads.new_zeros(self.numel)
        for start in range(0, len(layer_input), step):
            rows = slice(start, start + step)
            total += self.jacobian(layer_input[rows], grads[:, rows]).square().sum((0, 1))
        return total


class FlatRule(LayerRule):
    """A layer whose parameters stand one after another in its vector."""

    @override
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        lead = {name: values[name].shape[: values[name].dim() - len(shape)] for name, shape in self.shapes.items()}
        return torch.cat([values[name].reshape(*lead[name], -1) for name in self.shapes], -1)

    @override
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        values, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + torch.Size(shape).numel()
            values[name] = flat[..., start:stop].reshape(*flat.shape[:-1], *shape)
            start = stop
        return values
