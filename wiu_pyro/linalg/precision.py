"""Gaussian precision matrices that are never formed: diagonal, Kronecker-factored, and dense.

Each operator stands for a positive definite precision matrix Λ of `numel` variables and gives what a Gaussian posterior
needs of it: draws with covariance Λ⁻¹, quadratic forms, log det Λ, marginal variances (diagonal of Λ⁻¹), conditional
variances (one over the diagonal of Λ). Vectors are flat; the Kronecker operator reads them as matrices.

References
----------
Martens and Grosse (2015), Optimizing Neural Networks with Kronecker-factored Approximate Curvature.
Ritter et al. (2018), A Scalable Laplace Approximation for Neural Networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError

__all__ = ["DensePrecision", "DiagonalPrecision", "KroneckerPrecision", "Precision", "kl_from_diagonal_normal"]


class Precision(ABC):
    """A positive definite matrix Λ of shape (numel, numel), the precision of a Gaussian."""

    numel: int

    @abstractmethod
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        """Map standard Normal noise, shape (..., numel), to draws with covariance Λ⁻¹, of the same shape."""

    @abstractmethod
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        """Return δ'Λδ for δ of shape (..., numel), shape (...)."""

    @abstractmethod
    def log_det(self) -> torch.Tensor:
        """Return log det Λ, a float64 scalar."""

    @abstractmethod
    def variance(self) -> torch.Tensor:
        """Return the marginal variances, the diagonal of Λ⁻¹, shape (numel,)."""

    @abstractmethod
    def conditional_variance(self) -> torch.Tensor:
        """Return the variances of each variable given all others, 1 / diagonal of Λ, shape (numel,)."""

    @abstractmethod
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        """Return J Λ⁻¹ J' for Jacobians J of shape (batch, outputs, numel), shape (batch, outputs, outputs)."""

    def log_prob(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the log density of N(0, Λ⁻¹) at δ of shape (..., numel), in float64, shape (...)."""
        return 0.5 * (self.log_det() - self.quadratic(delta).double() - self.numel * math.log(2 * math.pi))

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, a float64 scalar."""
        return 0.5 * (self.numel * (1 + math.log(2 * math.pi)) - self.log_det())


class DiagonalPrecision(Precision):
    """Independent variables.

    Parameters
    ----------
    precision : Tensor, shape (numel,)
        Strictly positive.

    Raises
    ------
    CurvatureError
        If a precision is not positive and finite.
    """

    def __init__(self, precision: torch.Tensor) -> None:
        if not (torch.isfinite(precision).all() and (precision > 0).all()):
            raise CurvatureError(
                "A diagonal precision needs positive finite entries, but the smallest is "
                f"{precision.min().item():.3g}. "
                'Check the data for NaN, or use curvature="ggn", which is positive semi-definite.'
            )
        self.precision = precision
        self.numel = precision.numel()

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        return noise * self.precision.rsqrt()

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        return (delta.double().square() * self.precision.double()).sum(-1)

    @override
    def log_det(self) -> torch.Tensor:
        return self.precision.double().log().sum()

    @override
    def variance(self) -> torch.Tensor:
        return self.precision.reciprocal()

    @override
    def conditional_variance(self) -> torch.Tensor:
        return self.precision.reciprocal()

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        return (jacobian * self.variance()) @ jacobian.mT


class KroneckerPrecision(Precision):
    """Λ = G ⊗ A + I ⊗ diag(q) of the weights of a layer, one block for each group.

    A variable is an entry of a matrix of shape (out, in), flattened row by row. G acts on the outputs, A on the inputs,
    and q, the prior precision, depends on the input column alone. With A' = diag(q)^-1/2 A diag(q)^-1/2 the sum becomes
    (I ⊗ diag(q)^1/2) (G ⊗ A' + I) (I ⊗ diag(q)^1/2), so two small eigendecompositions invert it exactly: no damping is
    put on the factors.

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
        self.whitener = column_precision.rsqrt()  # (in,)
        self.grad_diagonal = grad_factor.diagonal(dim1=-2, dim2=-1)  # (groups, out)
        self.input_diagonal = input_factor.diagonal(dim1=-2, dim2=-1)  # (groups, in)
        whitened = self.whitener[:, None].double() * input_factor.double() * self.whitener.double()
        grad_values, out_basis = _eigh(grad_factor.double(), "grad")
        input_values, in_basis = _eigh(whitened, "input")
        self.eigenvalues = 1 + grad_values[:, :, None] * input_values[:, None, :]  # (groups, out, in), float64
        self.out_basis = out_basis.to(grad_factor.dtype)
        self.in_basis = in_basis.to(input_factor.dtype)
        self.inverse = self.eigenvalues.reciprocal().to(grad_factor.dtype)  # variances in the whitened eigenbasis
        self.matrix_shape = tuple(self.inverse.shape)  # (groups, out, in)
        self.numel = self.inverse.numel()

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
        rows = self.numel // len(self.column_precision)
        return self.eigenvalues.log().sum() + rows * self.column_precision.double().log().sum()

    @override
    def variance(self) -> torch.Tensor:
        matrix = self.out_basis.square() @ self.inverse @ self.in_basis.square().mT
        return (matrix * self.whitener.square()).reshape(-1)

    @override
    def conditional_variance(self) -> torch.Tensor:
        diagonal = self.grad_diagonal[:, :, None] * self.input_diagonal[:, None, :] + self.column_precision
        return diagonal.reciprocal().reshape(-1)

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        matrix = jacobian.reshape(*jacobian.shape[:-1], *self.matrix_shape) * self.whitener
        rotated = (self.out_basis.mT @ matrix @ self.in_basis).reshape(jacobian.shape)
        return (rotated * self.inverse.reshape(-1)) @ rotated.mT


class DensePrecision(Precision):
    """A dense precision matrix, kept as its float64 Cholesky factor.

    Parameters
    ----------
    matrix : Tensor, shape (numel, numel)
        Symmetric positive definite.
    dtype : dtype, optional
        Of what the methods return; the matrix's own when None.

    Raises
    ------
    CurvatureError
        If the matrix is not finite or not positive definite; the message names the smallest eigenvalue.
    """

    def __init__(self, matrix: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or matrix.dtype
        self.numel = len(matrix)
        matrix = matrix.double()
        if not torch.isfinite(matrix).all():
            raise CurvatureError("A finite precision matrix is needed, but it holds NaN or infinity. Check the data.")
        factor, info = torch.linalg.cholesky_ex(matrix)
        if info.item():
            values = torch.linalg.eigvalsh(matrix)
            raise CurvatureError(
                "A positive definite precision matrix is needed, but its smallest eigenvalue is "
                f"{values[0].item():.3g} ({int((values <= 0).sum())} of {self.numel} not positive). "
                'Train further, or use curvature="ggn", which is positive semi-definite.'
            )
        self.diagonal = matrix.diagonal().clone()
        self.factor = factor
        self.covariance = torch.cholesky_inverse(factor)

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        columns = noise.reshape(-1, self.numel).double().mT
        draws = torch.linalg.solve_triangular(self.factor.mT, columns, upper=True)
        return draws.mT.reshape(noise.shape).to(noise.dtype)

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        return (delta.double() @ self.factor).square().sum(-1)

    @override
    def log_det(self) -> torch.Tensor:
        return 2 * self.factor.diagonal().log().sum()

    @override
    def variance(self) -> torch.Tensor:
        return self.covariance.diagonal().to(self.dtype)

    @override
    def conditional_variance(self) -> torch.Tensor:
        return self.diagonal.reciprocal().to(self.dtype)

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        return (jacobian.double() @ self.covariance @ jacobian.double().mT).to(jacobian.dtype)

    def marginal(self, index: torch.Tensor) -> DensePrecision:
        """Return the precision of the marginal over the variables in `index`, shape (len(index), len(index))."""
        block = self.covariance[index][:, index]
        return DensePrecision(torch.cholesky_inverse(torch.linalg.cholesky(block)))


def _eigh(matrix: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and vectors of a positive semi-definite matrix; rounding below zero becomes zero."""
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


def kl_from_diagonal_normal(
    precision: Precision, delta: torch.Tensor, *, prior_precision: torch.Tensor
) -> torch.Tensor:
    """Return KL(N(m, Λ⁻¹) ‖ N(m₀, diag(1/q))) in nats, in closed form.

    Parameters
    ----------
    precision : Precision
        Λ.
    delta : Tensor, shape (numel,)
        m − m₀.
    prior_precision : Tensor, shape (numel,)
        q, strictly positive.

    Returns
    -------
    Tensor
        Float64 scalar, ≥ 0: ½ [Σ qᵢ (Λ⁻¹)ᵢᵢ + Σ qᵢ (m − m₀)ᵢ² − numel + log det Λ − Σ log qᵢ].
    """
    q = prior_precision.double()
    spread = (q * precision.variance().double()).sum()
    shift = (q * delta.double().square()).sum()
    return 0.5 * (spread + shift - precision.numel + precision.log_det() - q.log().sum())
