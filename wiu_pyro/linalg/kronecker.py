"""Precisions of a layer's weight matrix in a Kronecker eigenbasis, with the prior in it exactly.

`KroneckerPrecision` is KFAC, G ⊗ A plus prior. `EigenbasisPrecision` has eigenvalues of its own in such a basis, one
for each weight, as the eigenvalue-corrected KFAC measures them.

References
----------
Martens and Grosse (2015), Optimizing Neural Networks with Kronecker-factored Approximate Curvature.
Ritter et al. (2018), A Scalable Laplace Approximation for Neural Networks.
George et al. (2018), Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError, PriorError
from wiu_pyro.linalg.dense import DensePrecision
from wiu_pyro.linalg.precision import Precision, check_prior_precision
from wiu_pyro.linalg.symmetric import symmetric_eigh

__all__ = ["EigenbasisPrecision", "KroneckerPrecision", "factor_eigh", "whitened"]

MAX_ELEMENTS = 2**24  # coordinates of weights held at once: 64 MB in float32
ROUNDING = 1e-4  # of the largest eigenvalue: what a factor summed in float32 over many data may lie below zero


class EigenbasisPrecision(Precision):
    """Λ = (I ⊗ W⁻¹) (U ⊗ V) diag(table) (U ⊗ V)' (I ⊗ W⁻¹), one block for each group: diagonal in a Kronecker basis.

    A variable is an entry of a matrix of shape (out, in), flattened row by row. U acts on the outputs, V on the inputs,
    and W = diag(whitener), the prior's sd by input column, on the inputs. In the whitened basis the prior is the
    identity, so it enters exactly: table − 1 is the curvature.

    Parameters
    ----------
    out_basis : Tensor, shape (groups, out, out)
        U, orthogonal.
    in_basis : Tensor, shape (groups, in, in)
        V, orthogonal.
    whitener : Tensor, shape (in,)
        Prior sd, strictly positive.
    table : Tensor, shape (groups, out, in)
        Float64, at least 1: one plus the curvature in the basis.

    Raises
    ------
    CurvatureError
        If the table is not finite, or an entry is below 1.
    """

    def __init__(
        self, out_basis: torch.Tensor, in_basis: torch.Tensor, *, whitener: torch.Tensor, table: torch.Tensor
    ) -> None:
        if not (torch.isfinite(table).all() and (table >= 1).all()):
            raise CurvatureError(
                "Eigenvalues of a curvature must be finite and not negative, but the smallest is "
                f"{table.min().item() - 1:.3g}. Check data and weights."
            )
        self._curvature = table.double() - 1
        self._set(out_basis, in_basis, whitener)

    def _set(self, out_basis: torch.Tensor, in_basis: torch.Tensor, whitener: torch.Tensor) -> None:
        self.out_basis, self.in_basis = out_basis, in_basis
        self.whitener = whitener  # (in,)
        self.inverse = self.eigenvalues.reciprocal().to(out_basis.dtype)  # variances in the whitened eigenbasis
        self.matrix_shape = tuple(self.inverse.shape)  # (groups, out, in)
        self.numel = self.inverse.numel()

    @property
    def curvature_values(self) -> torch.Tensor:
        """The curvature in the whitened eigenbasis, shape (groups, out, in), float64."""
        return self._curvature

    @property
    def eigenvalues(self) -> torch.Tensor:
        """Λ in the whitened eigenbasis: 1 + curvature, shape (groups, out, in), float64."""
        return 1 + self.curvature_values

    @property
    def column_precision(self) -> torch.Tensor:
        """The prior precision of each input column, shape (in,), float64."""
        return self.whitener.double().square().reciprocal()

    def spectra(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean curvature along each basis direction of the outputs and of the inputs, float64.

        Relative to the prior, like `curvature_values`, which they are all of for a Kronecker product: its entry is the
        product of the two, divided by the mean of either.

        Returns
        -------
        outputs, inputs : Tensor, shapes (groups, out) and (groups, in)
        """
        values = self.curvature_values
        return values.mean(2), values.mean(1)

    def _divide_curvature(self, factor: float) -> None:
        self._curvature = self._curvature / factor

    @property
    @override
    def prior_precision(self) -> torch.Tensor:
        return self.column_precision.to(self.whitener.dtype).expand(self.matrix_shape).reshape(-1)

    @override
    def with_prior(self, prior_precision: torch.Tensor) -> EigenbasisPrecision:
        check_prior_precision(prior_precision, self.numel)
        columns = self._columns(prior_precision.double())
        ratio = columns / self.column_precision
        if torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0.0):
            return self._with_factor(ratio.mean().item())
        return self._with_columns(columns)

    def _with_factor(self, factor: float) -> Self:
        """Return the precision under the prior precision times one factor: in the same basis."""
        other = copy.copy(self)
        other._divide_curvature(factor)
        other._set(self.out_basis, self.in_basis, self.whitener * factor**-0.5)
        return other

    def _with_columns(self, columns: torch.Tensor) -> EigenbasisPrecision:
        raise self._ratio_error()

    def _ratio_error(self) -> PriorError:
        return PriorError(
            "Eigenvalues measured in a basis hold in that basis alone, and the basis holds for the prior scales of a "
            "layer's weights and biases up to one factor, but the factors asked for differ between its input columns. "
            "Scale the whole layer, use plain KFAC, or compute the curvature again under the other prior."
        )

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        ratio = self._columns(prior_precision).double() / self.column_precision
        if not torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0.0):
            raise self._ratio_error()
        return self.log_det_scaled(ratio.mean())

    @override
    def log_det_scaled(self, factor: torch.Tensor) -> torch.Tensor:
        return (self.curvature_values + factor).log().sum() + self._log_det_prior(self.column_precision)

    def _log_det_prior(self, columns: torch.Tensor) -> torch.Tensor:
        return self.numel // len(columns) * columns.log().sum()

    def _columns(self, prior_precision: torch.Tensor) -> torch.Tensor:
        """Return the prior precision of each input column, shape (in,), on the graph of `prior_precision`."""
        rows = prior_precision.reshape(-1, len(self.whitener))
        if not torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=0.0):
            raise PriorError(
                "A Kronecker-factored precision needs one prior precision for each input column, but they differ "
                "between output units. Use a diagonal or a full structure, which take any scales."
            )
        return rows.mean(0)

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        groups, out, in_ = self.matrix_shape
        matrix = noise.reshape(-1, groups, out, in_) * self.inverse.sqrt()
        right = self.in_basis.mT * self.whitener
        # one product for all draws of the only group
        matrix = matrix.view(-1, in_) @ right[0] if groups == 1 else matrix @ right
        return (self.out_basis @ matrix.view(-1, groups, out, in_)).reshape(noise.shape)

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        matrix = delta.reshape(*delta.shape[:-1], *self.matrix_shape) / self.whitener
        rotated = (self.out_basis.mT @ matrix @ self.in_basis).double()
        return (rotated.square() / self.inverse).sum((-3, -2, -1))

    @override
    def log_det(self) -> torch.Tensor:
        return self.curvature_values.log1p().sum() + self._log_det_prior(self.column_precision)

    @override
    def variance(self) -> torch.Tensor:
        matrix = self.out_basis.square() @ self.inverse @ self.in_basis.square().mT
        return (matrix * self.whitener.square()).reshape(-1)

    @override
    def conditional_variance(self) -> torch.Tensor:
        matrix = self.out_basis.double().square() @ self.eigenvalues @ self.in_basis.double().square().mT
        return (self.whitener.double().square() / matrix).to(self.inverse.dtype).reshape(-1)

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        matrix = jacobian.reshape(*jacobian.shape[:-1], *self.matrix_shape) * self.whitener
        rotated = (self.out_basis.mT @ matrix @ self.in_basis).reshape(jacobian.shape)
        return (rotated * self.inverse.reshape(-1)) @ rotated.mT

    @override
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        result = self.inverse.new_zeros(len(rows), len(columns))
        size = self.numel // self.matrix_shape[0]
        step = max(1, MAX_ELEMENTS // size)
        for group in range(self.matrix_shape[0]):
            one, two = ((index // size == group).nonzero()[:, 0] for index in (rows, columns))
            for left in one.split(step):
                coordinates = self._coordinates(rows[left])
                for right in two.split(step):
                    result[left[:, None], right] = coordinates @ self._coordinates(columns[right]).mT
        return result

    def _coordinates(self, index: torch.Tensor) -> torch.Tensor:
        """Return Λ^-1/2 e for variables of one group, in the eigenbasis, shape (len(index), out * in)."""
        _, out, width = self.matrix_shape
        group, row, column = index // (out * width), index // width % out, index % width
        outer = self.out_basis[group, row][:, :, None] * self.in_basis[group, column][:, None, :]
        return (outer * self.inverse[group].sqrt() * self.whitener[column][:, None, None]).flatten(1)

    @override
    def marginal(self, index: torch.Tensor) -> DensePrecision:
        block = self.covariance_between(index, index).double()
        return DensePrecision(torch.cholesky_inverse(torch.linalg.cholesky(block)), dtype=self.inverse.dtype)


class KroneckerPrecision(EigenbasisPrecision):
    """Λ = G ⊗ A + I ⊗ diag(q) of the weights of a layer, one block for each group.

    With A' = diag(q)^-1/2 A diag(q)^-1/2 the sum becomes (I ⊗ diag(q)^1/2) (G ⊗ A' + I) (I ⊗ diag(q)^1/2), so two small
    eigendecompositions invert it exactly: no damping is put on the factors. The factors themselves are not kept; where
    another prior asks for A, it is put together from its eigenvectors, to their rounding.

    Parameters
    ----------
    grad_factor : Tensor, shape (groups, out, out)
        G, symmetric positive semi-definite.
    input_factor : Tensor, shape (groups, in, in)
        A, symmetric positive semi-definite.
    column_precision : Tensor, shape (in,)
        q, strictly positive.

    Raises
    ------
    CurvatureError
        If a factor is not finite or not positive semi-definite.
    """

    def __init__(self, grad_factor: torch.Tensor, input_factor: torch.Tensor, column_precision: torch.Tensor) -> None:
        self.grad_values, out_basis = factor_eigh(grad_factor.double(), "grad")  # (groups, out)
        self.input_values, in_basis = factor_eigh(whitened(input_factor, column_precision), "input")  # (groups, in)
        self._set(out_basis.to(grad_factor.dtype), in_basis.to(input_factor.dtype), column_precision.rsqrt())

    @property
    @override
    def curvature_values(self) -> torch.Tensor:
        return self.grad_values[:, :, None] * self.input_values[:, None, :]

    @override
    def _divide_curvature(self, factor: float) -> None:
        self.input_values = self.input_values / factor

    @override
    def _with_columns(self, columns: torch.Tensor) -> KroneckerPrecision:
        values, in_basis = factor_eigh(self._whitened_by((self.column_precision / columns).sqrt()), "input")
        other = copy.copy(self)
        other.input_values = values
        other._set(self.out_basis, in_basis.to(self.in_basis.dtype), columns.rsqrt().to(self.whitener))
        return other

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        columns = self._columns(prior_precision).double()
        values = torch.linalg.eigvalsh(self._whitened_by((self.column_precision / columns).sqrt()))
        table = self.grad_values[:, :, None] * values.clamp(min=0)[:, None, :]
        return table.log1p().sum() + self._log_det_prior(columns)

    def _whitened_by(self, root: torch.Tensor) -> torch.Tensor:
        """Return the whitened input factor with rows and columns multiplied by `root` of shape (in,), float64."""
        basis = root[:, None] * self.in_basis.double()
        return (basis * self.input_values[:, None, :]) @ basis.mT


def whitened(input_factor: torch.Tensor, column_precision: torch.Tensor) -> torch.Tensor:
    """Return diag(q)^-1/2 A diag(q)^-1/2 of an input factor (groups, in, in), in float64: the basis of prior one."""
    whitener = column_precision.double().rsqrt()  # (in,)
    return whitener[:, None] * input_factor.double() * whitener


def factor_eigh(matrix: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and vectors of a positive semi-definite factor; rounding below zero becomes zero."""
    if not torch.isfinite(matrix).all():
        raise CurvatureError(f"A finite {name} factor is needed, but it holds NaN or infinity. Check data and weights.")
    values, vectors = symmetric_eigh(matrix)
    largest = values.max().item()
    if values.min().item() < -ROUNDING * max(largest, 1e-30):
        raise CurvatureError(
            f"A positive semi-definite {name} factor is needed, but its smallest eigenvalue is "
            f"{values.min().item():.3g} (largest {largest:.3g}). Check that the factor is symmetric."
        )
    return values.clamp(min=0), vectors
