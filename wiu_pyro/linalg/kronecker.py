"""Precision matrices that are diagonal in a Kronecker-factored basis and are never formed.

References
----------
Martens and Grosse (2015), Optimizing Neural Networks with Kronecker-factored Approximate Curvature.
Ritter et al. (2018), A Scalable Laplace Approximation for Neural Networks.
George et al. (2018), Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis.
"""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError
from wiu_pyro.linalg.precision import Precision

__all__ = ["EigenbasisPrecision", "KroneckerPrecision", "factor_eigh", "whitened"]


class EigenbasisPrecision(Precision):
    """Λ = (I ⊗ W⁻¹) (U ⊗ V) diag(table) (U ⊗ V)' (I ⊗ W⁻¹), one block for each group: diagonal in a Kronecker basis.

    A variable is an entry of a matrix of shape (out, in), flattened row by row. U acts on the outputs, V on the inputs,
    and W = diag(whitener) on the input columns.

    Parameters
    ----------
    out_basis : Tensor, shape (groups, out, out)
        U, orthogonal.
    in_basis : Tensor, shape (groups, in, in)
        V, orthogonal.
    whitener : Tensor, shape (in,)
        Strictly positive.
    table : Tensor, shape (groups, out, in)
        Float64, strictly positive.
    """

    def __init__(
        self, out_basis: torch.Tensor, in_basis: torch.Tensor, *, whitener: torch.Tensor, table: torch.Tensor
    ) -> None:
        self.out_basis, self.in_basis = out_basis, in_basis
        self.whitener = whitener  # (in,)
        self.eigenvalues = table  # (groups, out, in), float64
        self.inverse = table.reciprocal().to(out_basis.dtype)  # variances in the whitened eigenbasis
        self.matrix_shape = tuple(table.shape)  # (groups, out, in)
        self.numel = table.numel()

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        matrix = noise.reshape(*noise.shape[:-1], *self.matrix_shape) * self.inverse.sqrt()
        matrix = self.out_basis @ matrix @ self.in_basis.mT * self.whitener
        return matrix.reshape(noise.shape)

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        matrix = delta.reshape(*delta.shape[:-1], *self.matrix_shape) / self.whitener
        rotated = (self.out_basis.mT @ matrix @ self.in_basis).double()
        return (rotated.square() * self.eigenvalues).sum((-3, -2, -1))

    @override
    def log_det(self) -> torch.Tensor:
        rows = self.numel // len(self.whitener)
        return self.eigenvalues.log().sum() - 2 * rows * self.whitener.double().log().sum()

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


class KroneckerPrecision(EigenbasisPrecision):
    """Λ = G ⊗ A + I ⊗ diag(q) of the weights of a layer, one block for each group.

    G acts on the outputs, A on the inputs, and q, the prior precision, depends on the input column alone. With
    A' = diag(q)^-1/2 A diag(q)^-1/2 the sum becomes (I ⊗ diag(q)^1/2) (G ⊗ A' + I) (I ⊗ diag(q)^1/2), so two small
    eigendecompositions invert it exactly: no damping is put on the factors.

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
        self.column_precision = column_precision
        self.grad_diagonal = grad_factor.diagonal(dim1=-2, dim2=-1)  # (groups, out)
        self.input_diagonal = input_factor.diagonal(dim1=-2, dim2=-1)  # (groups, in)
        grad_values, out_basis = factor_eigh(grad_factor.double(), "grad")
        input_values, in_basis = factor_eigh(whitened(input_factor, column_precision), "input")
        super().__init__(
            out_basis.to(grad_factor.dtype),
            in_basis.to(input_factor.dtype),
            whitener=column_precision.rsqrt(),
            table=1 + grad_values[:, :, None] * input_values[:, None, :],
        )

    @override
    def conditional_variance(self) -> torch.Tensor:
        diagonal = self.grad_diagonal[:, :, None] * self.input_diagonal[:, None, :] + self.column_precision
        return diagonal.reciprocal().reshape(-1)


def whitened(input_factor: torch.Tensor, column_precision: torch.Tensor) -> torch.Tensor:
    """Return diag(q)^-1/2 A diag(q)^-1/2 of an input factor (groups, in, in), in float64: the basis of prior one."""
    whitener = column_precision.double().rsqrt()  # (in,)
    return whitener[:, None] * input_factor.double() * whitener


def factor_eigh(matrix: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and vectors of a positive semi-definite factor; rounding below zero becomes zero."""
    if not torch.isfinite(matrix).all():
        raise CurvatureError(f"A finite {name} factor is needed, but it holds NaN or infinity. Check data and weights.")
    values, vectors = torch.linalg.eigh(matrix)
    largest = values.max().item()
    if values.min().item() < -1e-5 * max(largest, 1e-30):
        raise CurvatureError(
            f"A positive semi-definite {name} factor is needed, but its smallest eigenvalue is "
            f"{values.min().item():.3g} (largest {largest:.3g}). Check that the factor is symmetric."
        )
    return values.clamp(min=0), vectors
