"""`Precision`: a Gaussian's precision matrix that is never formed, and what a posterior needs of it.

Each operator stands for a positive definite precision matrix Λ of `numel` variables: draws with covariance Λ⁻¹,
quadratic forms, log det Λ, marginal variances (diagonal of Λ⁻¹), conditional variances (one over the diagonal of Λ),
covariances between any two variables. Where Λ is a curvature plus a diagonal prior precision, the two are kept apart:
the prior can be changed without the data, and log det Λ is a differentiable function of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from wiu_pyro.errors import PriorError

__all__ = ["Precision", "kl_from_diagonal_normal"]


class Precision(ABC):
    """A positive definite matrix Λ of shape (numel, numel), the precision of a Gaussian.

    Attributes
    ----------
    numel : int
        Number of variables.
    """

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

    @abstractmethod
    def covariance_between(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return entries of Λ⁻¹.

        Parameters
        ----------
        rows, columns : Tensor of int64, shapes (num_rows,) and (num_columns,)
            Variables, 0 … numel − 1, in any order.

        Returns
        -------
        Tensor, shape (num_rows, num_columns)
            Covariance of each variable of `rows` with each of `columns`.
        """

    @abstractmethod
    def marginal(self, index: torch.Tensor) -> Precision:
        """Return the precision of the marginal over the variables in `index`, of shape (len(index), len(index))."""

    @property
    def prior_precision(self) -> torch.Tensor | None:
        """The diagonal prior precision within Λ, shape (numel,); None where Λ was given whole."""
        return None

    @abstractmethod
    def with_prior(self, prior_precision: torch.Tensor) -> Precision:
        """Return the precision with the same curvature under another prior.

        Parameters
        ----------
        prior_precision : Tensor, shape (numel,)
            Strictly positive.

        Returns
        -------
        Precision

        Raises
        ------
        PriorError
            If there is no curvature apart from a prior, or the structure cannot take this prior.
        """

    @abstractmethod
    def log_det_at(self, prior_precision: torch.Tensor) -> torch.Tensor:
        """Return log det Λ with the same curvature under another prior, differentiable in the prior.

        Parameters
        ----------
        prior_precision : Tensor, shape (numel,)
            Strictly positive.

        Returns
        -------
        Tensor
            Float64 scalar on the graph of `prior_precision`.

        Raises
        ------
        PriorError
            If there is no curvature apart from a prior, or the structure cannot take this prior.
        """

    def log_det_scaled(self, factor: torch.Tensor) -> torch.Tensor:
        """Return log det Λ with the present prior precision times one factor, differentiable in it.

        The eigenvalues are computed once at most, so that further calls cost little.

        Parameters
        ----------
        factor : Tensor, scalar
            Positive; multiplies the whole prior precision.

        Returns
        -------
        Tensor
            Float64 scalar on the graph of `factor`.

        Raises
        ------
        PriorError
            If there is no curvature apart from a prior.
        """
        if self.prior_precision is None:
            raise self._whole_error()
        return self.log_det_at(factor * self.prior_precision.double())

    def log_prob(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the log density of N(0, Λ⁻¹) at δ of shape (..., numel), in float64, shape (...)."""
        return 0.5 * (self.log_det() - self.quadratic(delta).double() - self.numel * math.log(2 * math.pi))

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, a float64 scalar."""
        return 0.5 * (self.numel * (1 + math.log(2 * math.pi)) - self.log_det())

    def _whole_error(self) -> PriorError:
        return PriorError(
            "Another prior needs a precision made of a curvature and a prior, but this "
            f"{type(self).__name__} was given whole. Fit the posterior again under the other prior."
        )


def kl_from_diagonal_normal(
    precision: Precision, delta: torch.Tensor, *, prior_precision: torch.Tensor, variance: torch.Tensor | None = None
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
    variance : Tensor, shape (numel,), optional
        Of the precision, where it is known already.

    Returns
    -------
    Tensor
        Float64 scalar, ≥ 0: ½ [Σ qᵢ (Λ⁻¹)ᵢᵢ + Σ qᵢ (m − m₀)ᵢ² − numel + log det Λ − Σ log qᵢ].
    """
    q = prior_precision.double()
    spread = (q * (precision.variance() if variance is None else variance).double()).sum()
    shift = (q * delta.double().square()).sum()
    return 0.5 * (spread + shift - precision.numel + precision.log_det() - q.log().sum())


def check_prior_precision(prior_precision: torch.Tensor, numel: int) -> None:
    """Raise PriorError unless there is one positive finite precision for each variable."""
    if prior_precision.shape != (numel,):
        raise PriorError(
            f"One prior precision for each of {numel} variables is needed, shape ({numel},), but the shape is "
            f"{tuple(prior_precision.shape)}. Expand it."
        )
    if not (torch.isfinite(prior_precision).all() and (prior_precision > 0).all()):
        raise PriorError(
            "Prior precisions must be positive and finite, but the smallest is "
            f"{prior_precision.min().item():.3g}. Check the prior's scales."
        )
