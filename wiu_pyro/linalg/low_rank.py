"""A covariance of low rank plus diagonal, Σ = W W' + diag(d), as Pyro's AutoLowRankMultivariateNormal has it.

Its precision follows from Woodbury's identity; nothing of size (numel, numel) is formed.
"""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.linalg.precision import Precision

__all__ = ["LowRankCovariance"]


class LowRankCovariance(Precision):
    """The precision of N(0, W W' + diag(d)).

    Parameters
    ----------
    factor : Tensor, shape (numel, rank)
        W.
    diagonal : Tensor, shape (numel,)
        d, strictly positive.
    """

    def __init__(self, factor: torch.Tensor, diagonal: torch.Tensor) -> None:
        self.factor = factor
        self.diagonal = diagonal
        self.numel = len(diagonal)
        scaled = (factor / diagonal[:, None]).double()
        capacitance = torch.eye(factor.shape[1], dtype=torch.float64, device=factor.device)
        self.capacitance = torch.linalg.cholesky(capacitance + factor.double().mT @ scaled)
        # (rank, numel): Λ = diag(1/d) − R' R
        self.reduction = torch.linalg.solve_triangular(self.capacitance, scaled.mT, upper=False)

    @override
    def with_prior(self, prior_precision: torch.Tensor) -> Precision:
        raise self._whole_error()

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        raise self._whole_error()

    @override
    def colour(self, noise: torch.Tensor) -> torch.Tensor:
        # Σ^½ by an extra draw for the low-rank part would need more noise than numel; a square root instead:
        # (D + WW')^½ acts as D^½ (I + UU')^½ with U = D^-½ W, and (I + UU')^½ = I + Q (√(1+s²) − 1) Q'
        scaled = self.factor / self.diagonal.sqrt()[:, None]
        basis, singular, _ = torch.linalg.svd(scaled, full_matrices=False)
        stretched = (noise @ basis) * ((1 + singular.square()).sqrt() - 1)
        return (noise + stretched @ basis.mT) * self.diagonal.sqrt()

    @override
    def quadratic(self, delta: torch.Tensor) -> torch.Tensor:
        delta = delta.double()
        return (delta.square() / self.diagonal).sum(-1) - (delta @ self.reduction.mT).square().sum(-1)

    @override
    def log_det(self) -> torch.Tensor:
        return -self.diagonal.double().log().sum() - 2 * self.capacitance.diagonal().log().sum()

    @override
    def variance(self) -> torch.Tensor:
        return self.factor.square().sum(1) + self.diagonal

    @override
    def conditional_variance(self) -> torch.Tensor:
        precision = 1 / self.diagonal.double() - self.reduction.square().sum(0)
        return precision.reciprocal().to(self.diagonal.dtype)

    @override
    def covariance_of(self, jacobian: torch.Tensor) -> torch.Tensor:
        low = jacobian @ self.factor
        return low @ low.mT + (jacobian * self.diagonal) @ jacobian.mT

    @override
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        same = rows[:, None] == columns
        return self.factor[rows] @ self.factor[columns].mT + same * self.diagonal[rows][:, None]

    @override
    def marginal(self, index: torch.Tensor) -> LowRankCovariance:
        return LowRankCovariance(self.factor[index], self.diagonal[index])
