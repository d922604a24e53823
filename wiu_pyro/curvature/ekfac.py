"""Eigenvalue-corrected Kronecker factors: the basis of KFAC, with the curvature's own diagonal in that basis.

George et al. (2018), Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis, section 3. A first
pass sums the Kronecker factors; a second one takes the per-sample gradients J (not those per position) into their
eigenbasis and sums the squares, Σ (U' J V)². Among all matrices that are diagonal in that basis this one is nearest to
the exact block in Frobenius norm, in the units in which the prior is one, so it is never further off than KFAC.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.kronecker import KroneckerFactors
from wiu_pyro.curvature.rules import LayerRule, MatrixRule
from wiu_pyro.curvature.rules.base import MAX_ELEMENTS
from wiu_pyro.curvature.rules.squares import summed_squares
from wiu_pyro.errors import CurvatureError, PriorError
from wiu_pyro.linalg import EigenbasisPrecision, factor_eigh, whitened

__all__ = ["EigenvalueCorrectedFactors"]


class EigenvalueCorrectedFactors(KroneckerFactors):
    """Kronecker factors of one layer after one pass, and the curvature's diagonal in their eigenbasis after two.

    The basis is that in which the prior is one: where input columns have different prior precisions q, it is that of
    G and diag(q)^-1/2 A diag(q)^-1/2. The prior is therefore needed before the first pass ends, by `check_prior`;
    without it the columns are taken to be alike.

    Parameters
    ----------
    rule : MatrixRule
    weight_sharing : {"expand", "reduce"}
        Of the factors whose basis it is; the per-sample gradients are exact in either.

    Attributes
    ----------
    column_precision : Tensor, shape (in,), or None
        q, up to a factor.
    out_basis, in_basis : Tensor, shapes (groups, out, out) and (groups, in, in), or None
        Of the factors, after the first pass.
    squares : Tensor, shape (groups, out, in)
        Σ (U' J W V)² over data and columns, W = diag(q)^-1/2.
    """

    structure: ClassVar[str] = "ekfac"
    num_passes: ClassVar[int] = 2

    def __init__(self, rule: MatrixRule, *, weight_sharing: str = "expand") -> None:
        super().__init__(rule, weight_sharing=weight_sharing)
        self.column_precision: torch.Tensor | None = None
        self.out_basis: torch.Tensor | None = None
        self.in_basis: torch.Tensor | None = None
        self.squares: torch.Tensor | float = 0.0

    @property
    @override
    def columns_alone(self) -> bool:
        return False

    @classmethod
    @override
    def num_elements(cls, rule: LayerRule) -> int:
        return super().num_elements(rule) + rule.numel

    @override
    def check_prior(self, layer: str, prior_precision: torch.Tensor) -> None:
        super().check_prior(layer, prior_precision)
        self.column_precision = prior_precision.view(-1, self.rule.in_features)[0].clone()

    @override
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        if self.out_basis is None or self.in_basis is None:
            super().update(layer_input, grads)
            return
        whitener = self._columns(grads).rsqrt().to(self.in_basis.dtype)  # (in,)
        inputs = self.rule.inputs(layer_input) * whitener  # (batch, groups, positions, in)
        outputs = self.rule.output_grads(grads)  # (columns, batch, groups, positions, out)
        if inputs.shape[2] == 1:
            # the square of an outer product is the outer product of squares
            inputs = (inputs[:, :, 0].transpose(0, 1) @ self.in_basis).square()  # (groups, batch, in)
            outputs = outputs[:, :, :, 0].transpose(1, 2) @ self.out_basis  # (columns, groups, batch, out)
            self.squares = self.squares + outputs.square().sum(0).mT @ inputs
        else:
            self._add_positions(inputs, outputs)

    @override
    def add_inputs(self, layer_input: torch.Tensor) -> None:
        if self.out_basis is None:
            super().add_inputs(layer_input)

    @override
    def add_columns(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        (super().add_columns if self.out_basis is None else self.update)(layer_input, grads)

    def _add_positions(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Add a batch whose weights are used at several positions: their sum comes before the square."""
        out_basis, in_basis = self.out_basis, self.in_basis
        if out_basis is None or in_basis is None:
            raise CurvatureError("The factors' basis is needed: call end_pass(0) first.")
        columns, positions = len(outputs), inputs.shape[2]
        out, in_ = self.rule.out_features, self.rule.in_features
        rotate_last = columns * out * in_ * (out + in_) < positions * (columns * out**2 + in_**2)
        if not rotate_last:
            turned = outputs @ out_basis
            self.squares = self.squares + summed_squares(lambda rows: inputs[rows] @ in_basis, in_, turned)
            return
        step = max(1, MAX_ELEMENTS // (columns * max(self.rule.numel, positions * out * self.rule.groups)))
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            joint = outputs[:, rows].mT @ inputs[rows]  # (columns, batch, groups, out, in)
            joint = out_basis.mT @ joint @ in_basis
            self.squares = self.squares + joint.square().sum((0, 1))

    @override
    def end_pass(self, number: int) -> None:
        dtype = self.grad_factor.dtype  # type: ignore[union-attr]
        _, out_basis = factor_eigh(self.grad_factor.double(), "grad")  # type: ignore[union-attr]
        _, in_basis = factor_eigh(whitened(self.input_factor, self._columns(self.input_factor)), "input")
        self.out_basis, self.in_basis = out_basis.to(dtype), in_basis.to(dtype)

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return super().sums() if self.out_basis is None else {"squares": self.squares}  # type: ignore[dict-item]

    @override
    def probes(self) -> list[torch.Tensor]:
        if self.out_basis is None:
            return super().probes()
        return [self.squares] if isinstance(self.squares, torch.Tensor) else []

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        if "squares" in sums:
            self.squares = sums["squares"]
        else:
            super().load_sums(sums)

    @override
    def kept(self) -> dict[str, torch.Tensor]:
        if self.out_basis is None or self.in_basis is None:
            return {}
        return {"out_basis": self.out_basis, "in_basis": self.in_basis}

    @override
    def load_kept(self, kept: dict[str, torch.Tensor]) -> None:
        self.out_basis, self.in_basis = kept.get("out_basis"), kept.get("in_basis")

    @override
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> EigenbasisPrecision:  # type: ignore[override]
        columns = prior_precision.view(-1, self.rule.in_features)[0]
        ratio = columns.double() / self._columns(columns).double()
        if not torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-5, atol=0.0):
            raise PriorError(
                "Eigenvalue-corrected factors need the prior precisions of the input columns in the ratios they had "
                f"during the pass, but these changed by factors from {ratio.min().item():.3g} to "
                f"{ratio.max().item():.3g}. Go through the data again with this prior, or use KFAC."
            )
        squares = self.squares.double() * scale / ratio[0]  # type: ignore[union-attr]
        if not torch.isfinite(squares).all():
            raise CurvatureError("A finite curvature is needed, but it holds NaN or infinity. Check data and weights.")
        return EigenbasisPrecision(self.out_basis, self.in_basis, whitener=columns.rsqrt(), table=1 + squares)  # type: ignore[arg-type]

    def _columns(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_ones(self.rule.in_features) if self.column_precision is None else self.column_precision
