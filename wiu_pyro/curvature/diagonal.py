"""The exact diagonal of a layer's curvature."""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.rules import LayerRule
from wiu_pyro.linalg import DiagonalPrecision

__all__ = ["DiagonalCurvature"]


class DiagonalCurvature(LayerCurvature):
    """The exact diagonal of one layer's curvature, summed over the data seen: `diagonal` has shape (numel,)."""

    structure: ClassVar[str] = "diagonal"

    def __init__(self, rule: LayerRule) -> None:
        super().__init__(rule)
        self.diagonal: torch.Tensor | float = 0.0

    @classmethod
    @override
    def num_elements(cls, rule: LayerRule) -> int:
        return 4 * rule.numel  # the sum; curvature, prior and precision

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        self.diagonal = self.diagonal + self.rule.squared_sum(layer_input, grads)

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"diagonal": self.diagonal}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.diagonal = sums["diagonal"]

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> DiagonalPrecision:
        return DiagonalPrecision(self.diagonal * scale, prior_precision)  # type: ignore[arg-type]
