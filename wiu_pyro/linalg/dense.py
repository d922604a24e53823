"""Any precision matrix, kept as its Cholesky factor in float64."""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.errors import CurvatureError
from wiu_pyro.linalg.precision import Precision, check_prior_precision

__all__ = ["DensePrecision"]


class DensePrecision(Precision):
    """A dense precision matrix Λ = curvature + diag(prior), kept as its float64 Cholesky factor.

    The curvature is not kept beside the factor: it is taken from it again where another prior asks for it, exact to
    float64's rounding.

    Parameters
    ----------
    curvature : Tensor, shape (numel, numel)
        Symmetric; the whole precision where there is no prior apart from it.
    prior_precision : Tensor, shape (numel,), optional
        Strictly positive.
    dtype : dtype, optional
        Of what the methods return; the matrix's own when None.

    Raises
    ------
    CurvatureError
        If the sum is not finite or not positive definite; the message names the smallest eigenvalue.
    """

    def __init__(
        self,
        curvature: torch.Tensor,
        prior_precision: torch.Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype or curvature.dtype
        self.numel = len(curvature)
        self._prior_precision = None if prior_precision is None else prior_precision.double()
        matrix = curvature.double()
        if self._prior_precision is not None:
            matrix = matrix + self._prior_precision.diag()
        if not torch.isfinite(matrix).all():
            raise CurvatureError("A finite precision matrix is needed, but it holds NaN or infinity. Check the data.")
        self.factor = _cholesky(matrix)
        self.diagonal = matrix.diagonal().clone()
        self.covariance = torch.cholesky_inverse(self.factor)
        self._eigenvalues: torch.Tensor | None = None

    @property
    @override
    def prior_precision(self) -> torch.Tensor | None:
        return None if self._prior_precision is None else self._prior_precision.to(self.dtype)

    @override
    def with_prior(self, prior_precision: torch.Tensor) -> DensePrecision:
        check_prior_precision(prior_precision, self.numel)
        return DensePrecision(self._curvature(), prior_precision, dtype=self.dtype)

    @override
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        return 2 * _cholesky(self._curvature() + prior_precision.double().diag()).diagonal().log().sum()

    @override
    def log_det_scaled(self, factor: torch.Tensor) -> torch.Tensor:
        if self._prior_precision is None:
            raise self._whole_error()
        if self._eigenvalues is None:
            root = self._prior_precision.rsqrt()
            self._eigenvalues = torch.linalg.eigvalsh(root[:, None] * self._curvature() * root)
        # NaN where the sum is not positive definite, which only a Hessian with negative curvature can be
        return (self._eigenvalues + factor).log().sum() + self._prior_precision.log().sum()

    def _curvature(self) -> torch.Tensor:
        if self._prior_precision is None:
            raise self._whole_error()
        return self.factor @ self.factor.mT - self._prior_precision.diag()

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

    @override
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return self.covariance[rows][:, columns].to(self.dtype)

    @override
    def marginal(self, index: torch.Tensor) -> DensePrecision:
        block = self.covariance[index][:, index]
        return DensePrecision(torch.cholesky_inverse(torch.linalg.cholesky(block)), dtype=self.dtype)

    def conditional(self, index: torch.Tensor) -> DensePrecision:
        """Return the precision of the variables in `index` given all others: their rows and columns of Λ.

        Parameters
        ----------
        index : Tensor of int64, shape (num,)

        Returns
        -------
        DensePrecision
            With the same prior apart from its curvature, where there is one.
        """
        rows = self.factor[index]
        if self._prior_precision is None:
            return DensePrecision(rows @ rows.mT, dtype=self.dtype)
        prior = self._prior_precision[index]
        return DensePrecision(rows @ rows.mT - prior.diag(), prior, dtype=self.dtype)


def _cholesky(matrix: torch.Tensor) -> torch.Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if info.item():
        values = torch.linalg.eigvalsh(matrix.detach())
        raise CurvatureError(
            "A positive definite precision matrix is needed, but its smallest eigenvalue is "
            f"{values[0].item():.3g} ({int((values <= 0).sum())} of {len(matrix)} not positive). "
            'Train further, or use curvature="ggn", which is positive semi-definite.'
        )
    return factor
