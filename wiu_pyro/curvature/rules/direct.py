"""Parameters whose Jacobian no layer's input and output show: it is asked of the network itself, datum by datum."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from typing_extensions import override

from wiu_pyro.curvature.rules.base import FlatRule
from wiu_pyro.errors import CurvatureError

__all__ = ["DirectRule", "DirectSource"]


class DirectSource(Protocol):
    """What differentiates the network at a layer's parameters; one is bound to the rules for the time of a pass."""

    def jacobian(self, layer: str, rows: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return per-sample gradients, shape (batch, columns, numel)."""

    def squared_sum(self, layer: str, rows: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return their squares, summed over batch and columns, shape (numel,)."""


class DirectRule(FlatRule):
    """Any parameters, whatever their module does with them: recurrent layers, attention, a parameter of the user's own.

    Its "layer" is the whole network: `layer_input` holds numbers of data, and `grads` what is
    passed backwards at the network's output, shape (columns, batch, outputs). Both come from a `CurvaturePass`.
    """

    def __init__(self, module: nn.Module | None, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(module, shapes)  # type: ignore[arg-type]
        self._source: tuple[DirectSource, str] | None = None

    def bind(self, source: DirectSource | None, layer: str) -> None:
        """Take gradients from `source`, which knows these parameters as `layer`; from none when None."""
        self._source = None if source is None else (source, layer)

    def _bound(self) -> tuple[DirectSource, str]:
        if self._source is None:
            raise CurvatureError(
                f"The Jacobian at the parameters {', '.join(self.shapes)} is to be had only while a pass over the data "
                "is under way, but none is. Use each batch of a CurvaturePass before asking for the next."
            )
        return self._source

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        source, layer = self._bound()
        return source.jacobian(layer, layer_input, grads)

    @override
    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        source, layer = self._bound()
        return source.squared_sum(layer, layer_input, grads)
