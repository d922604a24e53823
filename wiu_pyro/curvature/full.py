"""The whole curvature: of one layer, of several layers together, or of chosen weights of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.accumulated import Accumulated
from wiu_pyro.curvature.entries import jacobian_of_entries
from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.layer_record import CapturedBatch
from wiu_pyro.curvature.rules import LayerRule, MatrixRule
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

    @classmethod
    @override
    def scratch_bytes(cls, rule: LayerRule) -> int:
        return 2 * 8 * rule.numel**2  # float64: the sum scaled, and with the prior

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        rule = self.rule
        if isinstance(rule, MatrixRule) and rule.groups == 1 and type(rule).jacobian is MatrixRule.jacobian:
            inputs = rule.inputs(layer_input)  # (batch, 1, positions, in)
            if inputs.shape[2] == 1:
                self._add_outer(inputs[:, 0, 0].double(), rule.output_grads(grads)[:, :, 0, 0].double())
                return
        step = max(1, MAX_ELEMENTS // (len(grads) * self.rule.numel))
        for start in range(0, len(layer_input), step):
            rows = slice(start, start + step)
            jacobian = self.rule.jacobian(layer_input[rows], grads[:, rows]).flatten(0, 1).double()
            self.matrix = self.matrix + jacobian.mT @ jacobian  # of (batch * columns, numel)

    def _add_outer(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Add a batch whose Jacobians are outer products g a', as Σ_n (Σ_k g g')_n ⊗ (a a')_n.

        Summing over the columns first, and going over pairs of outputs once, leaves one of 2 × columns parts of the
        arithmetic that the Jacobians themselves would take.

        Parameters
        ----------
        inputs : Tensor, shape (batch, in)
        outputs : Tensor, shape (columns, batch, out)
        """
        if not isinstance(self.matrix, torch.Tensor):
            self.matrix = inputs.new_zeros(self.rule.numel, self.rule.numel)
        width, out = inputs.shape[-1], outputs.shape[-1]
        step = max(1, MAX_ELEMENTS // (out * max(width, out)))
        for start in range(0, len(inputs), step):
            own, part = inputs[start : start + step], outputs[:, start : start + step]
            pairs = torch.einsum("kno,knp->nop", part, part)
            for row in range(out):
                weighted = pairs[:, row, row:, None] * own[:, None]  # (batch, out - row, in)
                found = own.mT @ weighted.flatten(1)  # (in, (out - row) * in)
                at, beyond = row * width, (row + 1) * width
                self.matrix[at:beyond, at:] += found
                self.matrix[beyond:, at:beyond] += found[:, width:].mT

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
        matrix: torch.Tensor = self.matrix * scale  # type: ignore[assignment]
        return DensePrecision(matrix, prior_precision, dtype=prior_precision.dtype)


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
