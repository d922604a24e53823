"""Independent variables: a diagonal precision."""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError
from wiu_pyro.linalg.precision import Precision, check_prior_precision

__all__ = ["DiagonalPrecision"]


class DiagonalPrecision(Precision):
    """Independent variables: Λ = diag(curvature + prior).

    Parameters
    ----------
    curvature : Tensor, shape (numel,)
        Diagonal of the curvature; the whole precision where there is no prior apart from it.
    prior_precision : Tensor, shape (numel,), optional
        Strictly positive.

    Raises
    ------
    CurvatureError
        If a precision is not positive and finite.
    """

    def __init__(self, curvature: torch.Tensor, prior_precision: torch.Tensor | None = None) -> None:
        precision = curvature if prior_precision is None else curvature + prior_precision
        if not (torch.isfinite(precision).all() and (precision > 0).all()):
            raise CurvatureError(
                "A diagonal precision needs positive finite entries, but the smallest is "
                f"{precision.min().item():.3g}. "
                'Check the data for NaN, or use curvature="ggn", which is positive semi-definite.'
            )
        self.precision = precision
        self.numel = precision.numel()
        self._curvature = None if prior_precision is None else curvature
        self._prior_precision = prior_precision

    @property
    @override
    def prior_precision(self) -> torch.Tensor | None:
        return self._prior_precision

    @override
    def with_prior(self, prior_precision: torch.Tensor) -> DiagonalPrecision:
        check_prior_precision(prior_precision, self.numel)
        return DiagonalPrecision(self._own_curvature(), prior_precision.to(self.precision.dtype))

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        return (self._own_curvature().double() + prior_precision.double()).log().sum()

    def _own_curvature(self) -> torch.Tensor:
        if self._curvature is None:
            raise self._whole_error()
        return self._curvature

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

    @override
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return (rows[:, None] == columns) * self.precision[rows].reciprocal()[:, None]

    @override
    def marginal(self, index: torch.Tensor) -> DiagonalPrecision:
        if self._curvature is None or self._prior_precision is None:
            return DiagonalPrecision(self.precision[index])
        return DiagonalPrecision(self._curvature[index], self._prior_precision[index])
