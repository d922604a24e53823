"""Variational inference with a covariance of low rank plus diagonal over all weights of a network.

Ong, Nott and Smith (2018), Gaussian Variational Approximation with a Factor Covariance Structure; for networks, Mishkin
et al. (2018), SLANG, and Tomczak, Swaroop and Turner (2020), Efficient Low Rank Gaussian Variational Inference for
Neural Networks, whose ranks are 1 to 32. With S the sds of the diagonal part, Σ = S (I + U U') S: U has no unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import biject_to

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.cross_entropy import cross_entropy
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.initial_scale import WIDEST_START, check_init_scale, least_loss_scale
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.output_noise import RULES
from wiu_pyro.guides.weight_draw import DrawSource
from wiu_pyro.linalg import LowRankCovariance
from wiu_pyro.nn import ModelStructure

__all__ = ["AutoLowRank"]

ESTIMATORS = ("local", "reparam")
LARGEST_RANK = 10  # unless another is asked for: a step's time grows with it
MAX_ELEMENTS = 2**24  # of the factor, unless a rank is asked for: 64 MB, and three times that in training


class AutoLowRank(NetworkGuide):
    """A Gaussian over all weights whose covariance is a diagonal and a factor of low rank, within and between layers.

    Parameters
    ----------
    model : callable
        A Pyro model.
    rank : int or None
        Columns of the factor; when None, √(number of weights), at most 10, fewer for more than 1.6 million weights.
    estimator : {"local", "reparam"}
        How `negative_elbo` estimates the expected log-likelihood: with the diagonal part as noise of the layers'
        outputs (see `AutoMeanField`) and one draw along the factor for the batch, or with one draw of the weights.
    init_scale : float, optional
        Initial sd of the diagonal part, as a fraction of the prior sd. When None, as of `AutoMeanField`.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the KL.

    Raises
    ------
    GuideError
        If a number is not positive or the estimator is unknown.

    Examples
    --------
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> guide = AutoLowRank(BayesianNetwork(nn.Linear(4, 3), num_data=8), rank=2)
    >>> sorted(guide(torch.ones(8, 4), torch.zeros(8)))
    ['bias', 'weight']
    """

    cli_name = "low-rank"
    structure_name = "low-rank"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rank: int | None = None,
        estimator: str = "local",
        init_scale: float | None = None,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        check_init_scale(init_scale)
        if rank is not None and (not isinstance(rank, Integral) or rank < 1):
            raise GuideError(
                f"rank must be a whole number of at least 1, but is {rank!r}. AutoMeanField has no low-rank part."
            )
        if estimator not in ESTIMATORS:
            raise GuideError(f"Unknown estimator '{estimator}'. {near_matches(estimator, ESTIMATORS)}")
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.rank, self.estimator = rank, estimator
        self.init_scale, self.start_scale = init_scale, init_scale or WIDEST_START

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        if self.rank is None:
            self.rank = _default_rank(self.latent_dim)
        self.log_scale = nn.Parameter((self.start_scale * self.flat_prior().scale).log())
        # not zero, where the factor has no gradient; its part of each weight's variance is a hundredth
        self.factor = nn.Parameter(torch.randn(self.latent_dim, self.rank).to(self.loc) * 0.1 * self.rank**-0.5)

    def _put_start_scale(self, scale: float) -> None:
        with torch.no_grad():
            self.log_scale += math.log(scale / self.start_scale)
        self.start_scale = scale

    def before_training(self, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Choose the initial scale by −ELBO, unless it was given."""
        if self.init_scale is None:
            least_loss_scale(self._put_start_scale, self.negative_elbo, batches)

    def least_travel(self) -> float:
        """Return the way of a log sd from its start to the prior's, where it belongs if the data say nothing."""
        return abs(math.log(self.start_scale))

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, on the graph of the parameters: by the determinant lemma."""
        half_log_det = self._capacitance().diagonal().log().sum()
        return self.log_scale.sum() + half_log_det.to(self.loc) + self.latent_dim * (0.5 + HALF_LOG_TWO_PI)

    def _capacitance(self) -> torch.Tensor:
        """Return the Cholesky factor of I + U'U, float64, shape (rank, rank): det Σ = det S² det(I + U'U)."""
        inner = (self.factor.mT @ self.factor).double()
        return torch.linalg.cholesky(inner + torch.eye(len(inner), dtype=inner.dtype, device=inner.device))

    def variance(self) -> torch.Tensor:
        """Return the marginal variances, shape (latent_dim,)."""
        return (2 * self.log_scale).exp() * (1 + self.factor.square().sum(1))

    def kl_divergence(self, flat: torch.Tensor | None = None) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats: closed form for Normal priors, by the draw `flat` for the others."""
        prior = self.flat_prior()
        divergence = cross_entropy(prior, self.loc, self.variance()) - self.entropy()
        if prior.all_normal:
            return divergence
        if flat is None:
            scale = self.log_scale.exp()
            flat = torch.addcmul(self._centre(scale), scale, torch.randn_like(scale))
        return divergence - self.other_log_prior(flat)

    def _centre(self, scale: torch.Tensor) -> torch.Tensor:
        """Return the mean of the weights at a draw along the factor, shape (latent_dim,)."""
        along = torch.randn(self.rank, dtype=scale.dtype, device=scale.device)
        return torch.addcmul(self.loc, scale, self.factor @ along)

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats; the temperature multiplies the KL."""
        self.refuse_dependent_priors()
        scale = self.log_scale.exp()
        centre = self._centre(scale)
        log_likelihood = self.log_likelihood(self._draw(centre, scale, len(batch[0])), batch)
        return kl_weight * self.temperature * self.kl_divergence() - log_likelihood

    def _draw(self, centre: torch.Tensor, scale: torch.Tensor, num_rows: int) -> dict[str, torch.Tensor]:
        """Return a draw of each site given that along the factor, made at once or where it is needed."""
        if self.estimator == "reparam":
            return self.unpack(torch.addcmul(centre, scale, torch.randn_like(scale)))
        sites, nodes = self.sites(), self.prototype_trace.nodes
        parts = DrawSource(centre, scale, RULES["local"], num_rows=num_rows).split([shape for *_, shape in sites])
        return {name: biject_to(nodes[name]["fn"].support)(draw) for (name, *_), draw in zip(sites, parts, strict=True)}

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Gaussian over the flat, unconstrained vector of all weights."""
        scale = self.log_scale.exp()
        return dist.LowRankMultivariateNormal(self.loc, self.factor * scale[:, None], scale.square())

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.variance().sqrt()

    def gaussian_blocks(self, structure: ModelStructure) -> tuple[Block, ...]:
        """Return the posterior as one block over all layers."""
        scale = self.log_scale.detach().exp()
        precision = LowRankCovariance(self.factor.detach() * scale[:, None], scale.square())
        names = tuple(layer.name for layer in structure.layers)
        return (Block(names, self.structure_name, precision, torch.arange(self.latent_dim, device=scale.device)),)

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, on the unconstrained scale, a float64 scalar in nats."""
        deviation = (self.pack(weights).double() - self.loc.double()) * (-self.log_scale.double()).exp()
        capacitance = self._capacitance()
        along = torch.linalg.solve_triangular(capacitance, (self.factor.double().mT @ deviation)[:, None], upper=False)
        log_det = self.log_scale.double().sum() + capacitance.diagonal().log().sum()
        quadratic = deviation.square().sum() - along.square().sum()
        return -0.5 * quadratic - log_det - self.latent_dim * HALF_LOG_TWO_PI


def _default_rank(num_weights: int) -> int:
    """Return √(number of weights), bounded by what a step may take, in time and in memory."""
    return max(1, min(round(math.sqrt(num_weights)), LARGEST_RANK, MAX_ELEMENTS // num_weights))
