"""Gaussian precision matrices: what each must give, and the diagonal and dense ones.

Each operator stands for a positive definite precision matrix Λ of `numel` variables and gives what a Gaussian posterior
needs of it: draws with covariance Λ⁻¹, quadratic forms, log det Λ, marginal variances (diagonal of Λ⁻¹), conditional
variances (one over the diagonal of Λ). Vectors are flat.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError

__all__ = ["DensePrecision", "DiagonalPrecision", "Precision", "kl_from_diagonal_normal"]


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
