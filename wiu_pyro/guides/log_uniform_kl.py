r"""The KL of Normal weights from the log-uniform prior, and their sds, with clipped noise and gradients written out.

Molchanov, Ashukha and Vetrov (2017), Variational Dropout Sparsifies Deep Neural Networks, eq. 14. With mean θ, variance
σ² and log α = log σ² − log θ²: where log α is clipped, the sd is a fixed multiple of \|θ\|; elsewhere it is σ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["CLIP", "clipped_log_alpha", "log_uniform_kl", "sd_and_kl"]

CLIP = 8.0  # log α is held within −8 … 8
TINY = 1e-16  # added to θ², so that a weight of 0 has an α
K1, K2, K3 = 0.63576, 1.87320, 1.48695  # their eq. 14


def log_uniform_kl(log_alpha: torch.Tensor) -> torch.Tensor:
    """Return KL(N(θ, α θ²) ‖ log-uniform) of each weight in nats, up to a constant: 0 in the limit of infinite α.

    Parameters
    ----------
    log_alpha : Tensor, any shape
        log (variance / mean²).

    Returns
    -------
    Tensor, in the same shape
        An approximation by three fitted numbers, within 0.01 nats of the exact value at any α.

    References
    ----------
    .. [1] Molchanov, Ashukha and Vetrov (2017), Variational Dropout Sparsifies Deep Neural Networks, eq. 14.

    Examples
    --------
    >>> [round(kl, 2) for kl in log_uniform_kl(torch.tensor([-4.0, 0.0, 8.0])).tolist()]
    [2.63, 0.43, 0.0]
    """
    return K1 * torch.sigmoid(-K2 - K3 * log_alpha) + 0.5 * nn.functional.softplus(-log_alpha)


def clipped_log_alpha(loc: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return log α of each weight, within −8 … 8."""
    return (log_variance - (loc.square() + TINY).log()).clamp_(-CLIP, CLIP)


def sd_and_kl(loc: torch.Tensor, log_variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sd of each weight and the KL summed over them, a scalar in nats up to a constant.

    Parameters
    ----------
    loc, log_variance : Tensor, of one shape

    Returns
    -------
    sd : Tensor, in the same shape
    kl : Tensor, a scalar
    """
    return _SdAndKL.apply(loc, log_variance)


class _SdAndKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: torch.Tensor, log_variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        squares = loc.square().add_(TINY)
        log_alpha = log_variance - squares.log()
        inside = log_alpha.abs() < CLIP
        log_alpha.clamp_(-CLIP, CLIP)
        sd = (0.5 * log_alpha).exp_().mul_(squares.sqrt())
        logistic = torch.sigmoid(-K2 - K3 * log_alpha)
        kl = K1 * logistic.sum() + 0.5 * nn.functional.softplus(-log_alpha).sum()
        # d KL / d log α, 0 where it is clipped
        slope = logistic.mul_(1 - logistic).mul_(K1 * K3).add_(torch.sigmoid(-log_alpha), alpha=0.5).neg_().mul_(inside)
        ctx.save_for_backward(sd, slope, loc / squares, inside)
        return sd, kl

    @staticmethod
    def backward(ctx: Any, grad_sd: torch.Tensor, grad_kl: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sd, slope, ratio, inside = ctx.saved_tensors
        by_sd, by_kl = grad_sd * sd, slope * grad_kl
        grad_loc = torch.where(inside, -2 * by_kl, by_sd).mul_(ratio)
        return grad_loc, by_sd.mul_(0.5).mul_(inside).add_(by_kl)
