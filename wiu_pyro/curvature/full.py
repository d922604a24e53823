"""The whole curvature: of one layer, of several layers together, or of chosen weights of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.accumulated import Accumulated
from wiu_pyro.curvature.capture import CapturedBatch
from wiu_pyro.curvature.entries import jacobian_of_entries
from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.rules import LayerRule
from wiu_pyro.curvature.rules.base import MAX_ELEMENTS
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
    def probes(self) -> list[torch.Tensor]:
        return [self.matrix.diagonal()] if isinstance(self.matrix, torch.Tensor) else []

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> DensePrecision:
        return DensePrecision(self.matrix * scale, prior_precision, dtype=prior_precision.dtype)


class FullCurvature(Accumulated):
    """The whole curvature of some layers together, or of chosen weights of them: `matrix` has shape (numel, numel).

    Parameters
    ----------
    rules : mapping of str to LayerRule
        Its order is that of the matrix.
    entries : mapping of str to Tensor of int64, optional
        Which weights of each layer, in its rule's order; all of a layer that is not named.
    """

    def __init__(self, rules: Mapping[str, LayerRule], entries: Mapping[str, torch.Tensor] | None = None) -> None:
        self.rules = rules
        self.entries = entries or {}
        self.numel = sum(
            len(self.entries[name]) if name in self.entries else rule.numel for name, rule in rules.items()
        )
        self.matrix: torch.Tensor | float = 0.0

    @override
    def take(self, name: str, shown: CapturedBatch) -> None:
        if shown.grads:
            self.update(shown)

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"matrix": self.matrix}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.matrix = sums["matrix"]

    @override
    def probes(self) -> list[torch.Tensor]:
        return [self.matrix.diagonal()] if isinstance(self.matrix, torch.Tensor) else []

    @override
    def zero_layers(self, name: str) -> list[str]:
        if self.entries or not isinstance(self.matrix, torch.Tensor):
            return []  # of chosen weights, those of a layer may well have none
        parts = self.matrix.diagonal().split([rule.numel for rule in self.rules.values()])
        return [layer for layer, part in zip(self.rules, parts, strict=True) if not part.any()]

    def update(self, captured: CapturedBatch) -> None:
        """Add one batch."""
        columns, size = next(iter(captured.grads.values())).shape[:2]
        step = max(1, MAX_ELEMENTS // (columns * self.numel))
        for start in range(0, size, step):
            rows = slice(start, start + step)
            parts = [
                jacobian_of_entries(
                    rule, captured.inputs[name][rows], captured.grads[name][:, rows], entries=self.entries.get(name)
                )
                for name, rule in self.rules.items()
            ]
            jacobian = torch.cat(parts, -1).flatten(0, 1).double()  # (batch * columns, numel)
            self.matrix = self.matrix + jacobian.mT @ jacobian
