"""The exact diagonal of a layer's curvature.

Where a layer uses its weights once for a datum, the square of an outer product is the outer product of squares: the
squares of all columns add up first, column by column as they come, and are multiplied with the inputs' once.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.rules import LayerRule, LinearRule, MatrixRule
from wiu_pyro.linalg import DiagonalPrecision

__all__ = ["DiagonalCurvature"]


class DiagonalCurvature(LayerCurvature):
    """The exact diagonal of one layer's curvature, summed over the data seen: `diagonal` has shape (numel,)."""

    structure: ClassVar[str] = "diagonal"

    def __init__(self, rule: LayerRule) -> None:
        super().__init__(rule)
        self._summed: torch.Tensor | float = 0.0
        self._open: tuple[torch.Tensor, torch.Tensor] | None = None  # inputs of some data, squares of their gradients

    @property
    def diagonal(self) -> torch.Tensor | float:
        """The sum over the data seen; 0.0 before any."""
        if self._open is not None:
            layer_input, squares = self._open
            self._open = None
            assert isinstance(self.rule, MatrixRule)  # noqa: S101 (for the type checker)
            self._summed = self._summed + self.rule.squared_products(layer_input, squares)
        return self._summed

    @property
    @override
    def columns_alone(self) -> bool:
        return isinstance(self.rule, LinearRule)

    @classmethod
    @override
    def num_elements(cls, rule: LayerRule) -> int:
        return 4 * rule.numel  # the sum; curvature, prior and precision

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        squares = self.rule.output_squares(grads) if isinstance(self.rule, MatrixRule) else None
        if squares is None:
            self._summed = self.diagonal + self.rule.squared_sum(layer_input, grads)
        elif self._open is not None and self._open[0] is layer_input:  # further columns of the same data
            self._open[1].add_(squares)
        else:
            self._summed = self.diagonal
            self._open = layer_input, squares

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"diagonal": self.diagonal}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self._summed, self._open = sums["diagonal"], None

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> DiagonalPrecision:
        return DiagonalPrecision(self.diagonal * scale, prior_precision)  # type: ignore[arg-type]
