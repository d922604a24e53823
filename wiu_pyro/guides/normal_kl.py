"""Means, sds and KL of independent Normals against Normal priors, in as few passes over memory as their gradient takes.

A step of mean-field inference consists of such passes and of the network's own; what autograd would record one by one
is written out here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI, FlatPrior

__all__ = ["mixed_kl", "moments_and_kl", "site_kl"]

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def moments_and_kl(loc: torch.Tensor, log_scale: torch.Tensor, prior: FlatPrior) -> Three:
    """Return means, sds and KL(q ‖ prior) of a flat vector of weights, all of them with Normal priors.

    Parameters
    ----------
    loc, log_scale : Tensor, shape (latent_dim,)
    prior : FlatPrior

    Returns
    -------
    loc, scale : Tensor, shape (latent_dim,)
    divergence : Tensor
        A scalar, in nats.
    """
    return _MomentsAndKL.apply(loc, log_scale, prior)


class _MomentsAndKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: torch.Tensor, log_scale: torch.Tensor, prior: FlatPrior) -> Three:
        scale = log_scale.exp()
        shift = loc if prior.centred else loc - prior.loc
        pull = shift * prior.precision  # dKL/dm = (m − m₀) / s₀²
        widened = scale * prior.precision
        ctx.save_for_backward(scale, pull, widened)
        squares = torch.dot(scale, widened) + torch.dot(shift, pull)
        divergence = 0.5 * (squares - loc.numel()) - (log_scale.sum() - prior.log_scale_sum)
        return loc.view_as(loc), scale, divergence

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_loc: torch.Tensor, grad_scale: torch.Tensor, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        scale, pull, widened = ctx.saved_tensors
        # d/d log s = s (d/ds + s / s₀²) − 1
        grad_log_scale = torch.addcmul(grad_scale, widened, grad).mul_(scale).sub_(grad)
        return torch.addcmul(grad_loc, pull, grad), grad_log_scale, None


def mixed_kl(loc: torch.Tensor, log_scale: torch.Tensor, prior: FlatPrior, *, flat: torch.Tensor) -> torch.Tensor:
    """Return KL(q ‖ prior) of the weights with Normal priors, plus log q of the others' part of the draw `flat`.

    Parameters
    ----------
    loc, log_scale, flat : Tensor, shape (latent_dim,)
    prior : FlatPrior

    Returns
    -------
    Tensor
        A scalar, in nats; less the others' log prior at `flat`, it is an estimate of the whole KL.
    """
    log_q = -0.5 * ((flat - loc) / log_scale.exp()).square() - log_scale - HALF_LOG_TWO_PI
    if prior.num_normal == 0:
        return log_q.sum()
    ratio, shift = (log_scale.exp() / prior.scale).square(), ((loc - prior.loc) / prior.scale).square()
    terms = 0.5 * (ratio + shift - 1) - log_scale + prior.scale.log()
    return torch.where(prior.normal, terms, log_q).sum()


def site_kl(loc: torch.Tensor, scale: torch.Tensor, prior_loc: torch.Tensor, prior_scale: torch.Tensor) -> torch.Tensor:
    """Return KL(N(loc, scale²) ‖ N(prior_loc, prior_scale²)), summed over all elements.

    Parameters
    ----------
    loc, scale : Tensor, of one shape
    prior_loc, prior_scale : Tensor
        Of a shape that broadcasts to it; differentiable too.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    if prior_loc.requires_grad or prior_scale.requires_grad:
        ratio, shift = scale / prior_scale, (loc - prior_loc) / prior_scale
        return 0.5 * (ratio.square() + shift.square() - 1).sum() - ratio.log().sum()
    return _SiteKL.apply(loc, scale, prior_loc, prior_scale)


class _SiteKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loc: torch.Tensor, scale: torch.Tensor, prior_loc: torch.Tensor, prior_scale: torch.Tensor
    ) -> torch.Tensor:
        prior_loc, prior_scale = _one_number(prior_loc), _one_number(prior_scale)
        precision = prior_scale.square().reciprocal()
        pull, widened = (loc - prior_loc).mul_(precision), scale * precision
        ctx.save_for_backward(scale, pull, widened)
        squares = torch.dot(scale.reshape(-1), widened.reshape(-1)) + ((loc - prior_loc) * pull).sum()
        logs = prior_scale.log().expand(loc.shape).sum() - scale.log().sum()
        return 0.5 * (squares - loc.numel()) + logs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale, pull, widened = ctx.saved_tensors
        return pull * grad, (widened - scale.reciprocal()).mul_(grad), None, None


def _one_number(value: torch.Tensor) -> torch.Tensor:
    """Return a number that was expanded to a tensor as the number; another tensor as it is."""
    constant = value.dim() > 0 and value.numel() > 0 and not any(value.stride())
    return value.reshape(-1)[0] if constant else value
