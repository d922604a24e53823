"""The whole curvature: of one layer, or of all layers together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.capture import CapturedBatch
from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.rules import LayerRule
from wiu_pyro.linalg import DensePrecision

__all__ = ["FullCurvature", "FullLayerCurvature"]


class FullLayerCurvature(LayerCurvature):
    """One layer's whole block of the curvature, summed over the data seen: `matrix` has shape (numel, numel)."""

    structure: ClassVar[str] = "full"

    def __init__(self, rule: LayerRule) -> None:
        super().__init__(rule)
        self.matrix: torch.Tensor | float = 0.0

    @classmethod
    @override
    def num_elements(cls, rule: LayerRule) -> int:
        return 6 * rule.numel**2  # float64: the sum, its factor, the covariance

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        jacobian = self.rule.jacobian(layer_input, grads).flatten(0, 1).double()  # (batch * columns, numel)
        self.matrix = self.matrix + jacobian.mT @ jacobian

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"matrix": self.matrix}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.matrix = sums["matrix"]

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> DensePrecision:
        return DensePrecision(self.matrix * scale, prior_precision, dtype=prior_precision.dtype)


class FullCurvature:
    """The whole curvature of all layers together, in the order of `rules`: `matrix` has shape (numel, numel)."""

    def __init__(self, rules: Mapping[str, LayerRule]) -> None:
        self.rules = rules
        self.matrix: torch.Tensor | float = 0.0

    def update(self, captured: CapturedBatch) -> None:
        """Add one batch."""
        parts = [rule.jacobian(captured.inputs[name], captured.grads[name]) for name, rule in self.rules.items()]
        jacobian = torch.cat(parts, -1).flatten(0, 1).double()  # (batch * columns, numel)
        self.matrix = self.matrix + jacobian.mT @ jacobian
