"""Kronecker factors of a layer's curvature.

The block of a layer is G ⊗ A. Where its weights are used at several positions t of a datum n, there are two forms
(Eschenhagen et al. 2023). "expand" treats each use as a datum of its own, G = Σ_nt g g' and A the mean of a a' over n
and t; for convolutions it is that of Grosse and Martens (2016). "reduce" takes g to be the sum of the gradients of a
datum and a the mean of its inputs. For a linear network and squared loss, "expand" is exact where each position has a
loss of its own, "reduce" where the network sums over the positions. Where weights are used once, both are the same.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.gram import GramSum
from wiu_pyro.curvature.input_products import InputProducts
from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.rules import LayerRule, MatrixRule
from wiu_pyro.errors import PriorError
from wiu_pyro.linalg import KroneckerPrecision

__all__ = ["KroneckerFactors"]


class KroneckerFactors(LayerCurvature):
    """Kronecker factors of one layer's curvature, summed over the data seen.

    Parameters
    ----------
    rule : MatrixRule
    weight_sharing : {"expand", "reduce"}
        What becomes of the positions at which a datum uses the weights.

    Attributes
    ----------
    grad_factor : Tensor, shape (groups, out, out)
        Σ over data, columns and ("expand") positions of g g'.
    input_sum : Tensor, shape (groups, in, in)
        Σ over data and ("expand") positions of a a'.
    uses : Tensor
        Data seen, times positions ("expand"), a float64 scalar.
    """

    structure: ClassVar[str] = "kfac"
    rule: MatrixRule

    def __init__(self, rule: MatrixRule, *, weight_sharing: str = "expand") -> None:
        super().__init__(rule)
        self.weight_sharing = weight_sharing
        self._grads, self._inputs = GramSum(), InputProducts(rule)
        self.uses = torch.zeros((), dtype=torch.float64)

    @property
    @override
    def columns_alone(self) -> bool:
        return True

    @classmethod
    @override
    def covers(cls, rule: LayerRule) -> bool:
        return isinstance(rule, MatrixRule)

    @classmethod
    @override
    def num_elements(cls, rule: LayerRule) -> int:
        # factors, eigenvectors, and the table of variances in the eigenbasis (float64 and float32)
        return 2 * rule.groups * (rule.out_features**2 + rule.in_features**2) + 3 * rule.numel  # type: ignore[attr-defined]

    @classmethod
    @override
    def scratch_bytes(cls, rule: LayerRule) -> int:
        # the larger factor in float64, its eigenvectors, and twice as much for LAPACK's divide and conquer
        return 4 * 8 * rule.groups * max(rule.in_features, rule.out_features) ** 2  # type: ignore[attr-defined]

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        self.add_inputs(layer_input)
        KroneckerFactors.add_columns(self, layer_input, grads)

    @override
    def add_inputs(self, layer_input: torch.Tensor) -> None:
        if self.weight_sharing == "reduce":
            means = self.rule.inputs(layer_input).mean(2)  # (batch, groups, in)
            self._inputs.add_vectors(means.transpose(0, 1))
            self.uses = self.uses + len(means)
        else:
            self.uses = self.uses + self._inputs.add(layer_input)

    @override
    def add_columns(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        outputs = self.rule.output_grads(grads)  # (columns, batch, groups, positions, out)
        if self.weight_sharing == "reduce":
            outputs = outputs.sum(3, keepdim=True)
        positions, out = outputs.shape[3:]
        if positions >= out > 1:  # a small product for each datum is less than another order of what it is made of
            each = outputs.transpose(0, 1).flatten(0, 1)  # (columns * batch, groups, positions, out)
            self.grad_factor = self.grad_factor + (each.mT @ each).sum(0)
        else:
            self._grads.add(outputs.permute(2, 1, 0, 3, 4).flatten(1, 3))

    @property
    def grad_factor(self) -> torch.Tensor | float:
        """Σ over data, columns and ("expand") positions of g g', shape (groups, out, out); 0.0 before any data."""
        return self._grads.total()

    @grad_factor.setter
    def grad_factor(self, value: torch.Tensor | float) -> None:
        self._grads.load(value)

    @property
    def input_sum(self) -> torch.Tensor | float:
        """Σ over data and ("expand") positions of a a', shape (groups, in, in); 0.0 before any data."""
        return self._inputs.total()

    @input_sum.setter
    def input_sum(self, value: torch.Tensor | float) -> None:
        self._inputs.load(value)

    @property
    def input_factor(self) -> torch.Tensor:
        """A: the mean of a a' over what `uses` counts, shape (groups, in, in)."""
        return self.input_sum / self.uses.item()  # type: ignore[return-value]

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {"grad_factor": self.grad_factor, "input_sum": self.input_sum, "uses": self.uses}  # type: ignore[dict-item]

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.grad_factor, self.input_sum, self.uses = sums["grad_factor"], sums["input_sum"], sums["uses"]

    @override
    def probes(self) -> list[torch.Tensor]:
        return self._grads.probes() + self._inputs.probes()

    @override
    def check_prior(self, layer: str, prior_precision: torch.Tensor) -> None:
        rows = prior_precision.view(-1, self.rule.in_features)
        if not torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=0.0):
            raise PriorError(
                f"KFAC needs one prior scale per input column of a layer, but in layer '{layer}' the prior's "
                "scale differs between output units. Use AutoDiagonalLaplace or AutoFullLaplace, which take any scales."
            )

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> KroneckerPrecision:
        columns = prior_precision.view(-1, self.rule.in_features)[0].clone()
        return KroneckerPrecision(self.grad_factor * scale, self.input_factor, columns)  # type: ignore[arg-type]
