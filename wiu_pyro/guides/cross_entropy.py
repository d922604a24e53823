"""The Normal priors' part of a Gaussian posterior's KL: from means and marginal variances, whatever correlates."""

from __future__ import annotations

import torch

from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI, FlatPrior

__all__ = ["cross_entropy"]


def cross_entropy(prior: FlatPrior, loc: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return −E log p(w) over the weights with a Normal prior, in nats, on the graph of the moments.

    KL(q ‖ p) is this less the entropy of q; what has another prior adds −log p at a draw.

    Parameters
    ----------
    prior : FlatPrior
    loc, variance : Tensor, shape (latent_dim,)
        Mean and marginal variance of each weight under q.

    Returns
    -------
    Tensor
        A scalar.
    """
    shift = loc if prior.centred else loc - prior.loc
    squares = torch.addcmul(variance, shift, shift)
    if not prior.all_normal:
        squares = squares * prior.normal
    return 0.5 * torch.dot(squares, prior.precision) + prior.log_scale_sum + prior.num_normal * HALF_LOG_TWO_PI
