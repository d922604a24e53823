r"""The KL of independent Normals from mixtures of zero-mean Normals in closed form, each weight's scale being latent.

A weight under such a mixture has a scale of its own, one of K, that the prior draws first. The posterior over the
weight and its scale, q(w) q(k) with q(k) at its best, has the KL

.. math:: -\log \sum_k \pi_k N\!\left(\sqrt{m^2 + s^2}; 0, s_k^2\right) - \tfrac12 \log(2 \pi e s^2),

the mixture's own density at the root mean square of the weight (Jensen's inequality: its log is convex in w²). It has
no noise of draws, and is more than the KL of q(w) alone by E_q(w) KL(q(k) ‖ p(k | w)): up to 0.7 nats a weight on seven
equally likely scales from 0.0025 to 0.63, several nats where q(w) lies between two scales that are orders of magnitude
apart. Grids of scales are those of Stephens (2017), *False discovery rates: a new deal*; the bound is that of Palmer et
al. (2006), *Variational EM algorithms for non-Gaussian latent variable models*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch.autograd.function import once_differentiable

from wiu_pyro.errors import PriorError
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.normal_kl import site_kl
from wiu_pyro.nn import base_distribution

__all__ = ["ScaleGrid", "SiteKLs", "least_kl", "mixture_kl", "scale_grid"]

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), in nats
SDS = 4001  # tried for the least KL: it is flat there, so that a fine grid has it to about 1e-6

ScaleGrid = tuple[torch.Tensor, torch.Tensor]


def scale_grid(prior: Any) -> ScaleGrid | None:
    """Return probabilities and sds of a mixture of zero-mean Normals that is the same for all weights of a site.

    Parameters
    ----------
    prior : Distribution

    Returns
    -------
    (Tensor, Tensor) or None
        Each of shape (components,), the widest first; None for any other prior.
    """
    mixture = base_distribution(prior)
    if not isinstance(mixture, dist.MixtureSameFamily) or not isinstance(mixture.component_distribution, dist.Normal):
        return None
    parts = mixture.component_distribution
    found = []
    for values in (mixture.mixture_distribution.probs, parts.scale, parts.loc):
        rows = values.reshape(-1, values.shape[-1])
        if not (rows == rows[0]).all():
            return None
        found.append(rows[0])
    probs, scales, means = found
    if means.any():
        return None
    order = scales.argsort(descending=True)
    return probs[order], scales[order]


def mixture_kl(loc: torch.Tensor, log_scale: torch.Tensor, grid: ScaleGrid) -> torch.Tensor:
    """Return the KL of weights N(loc, scale²) and their scales from the prior over both, summed over the weights.

    Parameters
    ----------
    loc, log_scale : Tensor, shape (num_weights,)
    grid : (Tensor, Tensor)
        Probabilities and sds of the mixture, the widest first, as `scale_grid` gives them.

    Returns
    -------
    Tensor
        A scalar, in nats; at least KL(q ‖ mixture).

    Examples
    --------
    >>> grid = torch.tensor([1.0]), torch.tensor([1.0])  # one scale: the KL of two Normals
    >>> mixture_kl(torch.tensor([2.0]), torch.tensor([0.0]), grid).item()
    2.0
    """
    return _MixtureKL.apply(loc, log_scale, *grid)


def least_kl(grid: ScaleGrid) -> float:
    """Return the least KL of one weight and its scale: that of mean 0 and the best sd, which data only move it from.

    Parameters
    ----------
    grid : (Tensor, Tensor)
        As `scale_grid` gives it.

    Returns
    -------
    float
        In nats; 0 for a single scale.

    Examples
    --------
    >>> round(least_kl((torch.tensor([1.0]), torch.tensor([0.1]))), 6)
    0.0
    """
    probs, scales = (values.detach().double().cpu() for values in grid)
    # the best sd lies between the least and the widest scale: beyond them every component's term grows
    log_sds = torch.linspace(scales.min().log().item(), scales.max().log().item(), SDS, dtype=torch.float64)
    densities = dist.Normal(0.0, scales).log_prob(log_sds.exp()[:, None])
    return (-(probs.log() + densities).logsumexp(-1) - ENTROPY - log_sds).min().item()


class SiteKLs:
    """The KL in closed form of sites whose priors are Normal or mixtures of zero-mean Normals.

    Parameters
    ----------
    priors : mapping of site to Distribution
    """

    def __init__(self, priors: Mapping[str, Any]) -> None:
        self.priors = {name: base_distribution(prior) for name, prior in priors.items()}
        self.shapes = {name: prior.shape() for name, prior in priors.items()}
        self.grids: dict[str, ScaleGrid | None] = {}

    def total(self, sites: Sequence[Any], flat: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the sum over the sites, in nats.

        Parameters
        ----------
        sites : sequence of (name, place, shape)
            In the order of the flat vector.
        flat : tuple of Tensor, each of shape (latent_dim,)
            Means, log sds, and sds.

        Returns
        -------
        Tensor
            A scalar.

        Raises
        ------
        PriorError
            If a site has another prior.
        """
        sizes = [shape.numel() for *_, shape in sites]
        parts = zip(*(values.split(sizes) for values in flat), strict=True)
        return torch.stack([self._of(name, *part) for (name, *_), part in zip(sites, parts, strict=True)]).sum()

    def least(self) -> float:
        """Return the least that the sum can be, whatever the weights, in nats."""
        grids = {name: scale_grid(prior) for name, prior in self.priors.items() if not isinstance(prior, dist.Normal)}
        return sum(self.shapes[name].numel() * least_kl(grid) for name, grid in grids.items() if grid is not None)

    def _of(self, name: str, loc: torch.Tensor, log_scale: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        prior = self.priors[name]
        if isinstance(prior, dist.Normal):
            shape = self.shapes[name]
            return site_kl(loc.view(shape), scale.view(shape), prior.loc, prior.scale)
        if name not in self.grids:
            self.grids[name] = scale_grid(prior)
        grid = self.grids[name]
        if grid is None:
            raise PriorError(
                "scale_indicators needs Normal priors, and mixtures of zero-mean Normals that are the same for all "
                f"weights of a site, but that of '{name}' is none of them ({type(prior).__name__}). Leave "
                "scale_indicators out: then the KL comes by draws."
            )
        return mixture_kl(loc, log_scale, grid)


class _MixtureKL(torch.autograd.Function):
    """The bound with its gradient: the prior acts as a Normal of the precision Σ_k q(k) / s_k² of each weight."""

    @staticmethod
    def forward(
        ctx: Any, loc: torch.Tensor, log_scale: torch.Tensor, probs: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        variance = (2 * log_scale).exp()
        square = torch.addcmul(variance, loc, loc)  # E w²
        weights, halves = (probs / scales).log().tolist(), (0.5 * scales.square().reciprocal()).tolist()
        # relative to the widest component, whose term is the largest for large weights: no exponential overflows
        total, precision = torch.ones_like(square), torch.full_like(square, 2 * halves[0])
        for weight, half in zip(weights[1:], halves[1:], strict=True):
            term = (square * (halves[0] - half)).add_(weight - weights[0]).exp_()
            total += term
            precision.add_(term, alpha=2 * half)
        precision /= total
        ctx.save_for_backward(precision * loc, variance.mul_(precision).sub_(1))
        constant = len(loc) * (HALF_LOG_TWO_PI - ENTROPY - weights[0])
        return halves[0] * square.sum() - total.log_().sum() - log_scale.sum() + constant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_loc, grad_log_scale = ctx.saved_tensors
        return grad_loc * grad, grad_log_scale * grad, None, None
