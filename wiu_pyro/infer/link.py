r"""Class probabilities of a Gaussian over logits in closed form: probit approximation and Laplace bridge.

For logits f ~ N(μ, Σ) of one datum the probabilities wanted are E softmax(f), or E sigmoid(f) for one logit. Beside
draws of f there are two approximations without any:

- *probit*: sigmoid(μ / √(1 + π v / 8)) with v the logit's variance (MacKay 1992), and for several classes softmax(κ μ)
  with κ_c = 1 / √(1 + π Σ_cc / 8), covariances between classes left out (Gibbs 1997).
- *Laplace bridge*: the Dirichlet whose Laplace approximation in the softmax basis is N(μ, Σ), after Σ is conditioned on
  logits that sum to zero (MacKay 1998; Hobbhahn et al. 2022): with K classes
  α_k = (1 − 2/K + e^{μ_k} Σ_l e^{−μ_l} / K²) / Σ_kk. It has intervals and entropies too. For one logit of variance v it
  is the Beta with parameters (1 + e^μ) / v and (1 + e^{−μ}) / v, whose mean is sigmoid(μ): a bridge between two classes
  moderates nothing.
- *normalised bridge*: the same of μ / √s and Σ / s, where s is the mean of Σ's diagonal over √(K/2), after the
  conditioning (the variance correction of Hobbhahn et al. as laplace-torch has it). Large variances, at which the
  bridge is poor, become one size; so do small ones, whose means then move away from zero.

References
----------
MacKay (1992), The Evidence Framework Applied to Classification Networks.
Gibbs (1997), Bayesian Gaussian Processes for Regression and Classification.
MacKay (1998), Choice of Basis for Laplace Approximation.
Hobbhahn, Kristiadi and Hennig (2022), Fast Predictive Uncertainty for Classification with Bayesian Deep Networks.
"""

from __future__ import annotations

import math

import torch

__all__ = ["LINKS", "beta_concentration", "dirichlet_concentration", "dirichlet_entropy", "moderated"]

LINKS = ("mc", "probit", "bridge", "bridge_norm")
ROUNDING = 16  # units of it that the variance of a sum which never changes may have, beside the trace


def moderated(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return logits scaled down as the probit approximation has it, μ / √(1 + π v / 8).

    Parameters
    ----------
    mean, variance : Tensor, shape (batch, outputs)

    Returns
    -------
    Tensor, shape (batch, outputs)
        Their softmax or sigmoid are the approximate mean probabilities.
    """
    return mean / (1 + math.pi / 8 * variance).sqrt()


def dirichlet_concentration(mean: torch.Tensor, covariance: torch.Tensor, *, normalised: bool = False) -> torch.Tensor:
    """Return the parameters of the Laplace bridge's Dirichlet.

    Parameters
    ----------
    mean : Tensor, shape (batch, classes)
    covariance : Tensor, shape (batch, classes, classes)
        Not zero.
    normalised : bool
        Bring the variances to one size first.

    Returns
    -------
    Tensor, shape (batch, classes)
        Float64, positive.
    """
    least = ROUNDING * torch.finfo(covariance.dtype).eps  # of the type it was computed in
    mean, covariance = _conditioned(mean.double(), covariance.double(), least=least)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    classes = mean.shape[-1]
    if normalised:
        size = variance.mean(-1, keepdim=True) / (classes / 2) ** 0.5
        mean, variance = mean / size.sqrt(), variance / size
    terms = mean + torch.logsumexp(-mean, -1, keepdim=True) - 2 * math.log(classes)
    return (1 - 2 / classes + terms.exp()) / variance


def _conditioned(mean: torch.Tensor, covariance: torch.Tensor, *, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and covariance given that the logits sum to zero; a sum of less variance is taken for a constant."""
    # beside the trace: what is constant but for rounding must not be divided by
    rows = covariance.sum(-1)  # covariance of each logit with the sum
    total = rows.sum(-1, keepdim=True)
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    known = total <= least * trace  # the sum is a constant: take it off all logits alike
    scale = torch.where(known, 1, total)
    shift = torch.where(known, 1 / mean.shape[-1], rows / scale)
    outer = rows[:, :, None] * rows[:, None, :] / scale[:, :, None]
    return mean - shift * mean.sum(-1, keepdim=True), covariance - torch.where(known[:, :, None], 0, outer)


def beta_concentration(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return the parameters of the Laplace bridge's Beta for each logit, of class 1 and of class 0.

    Parameters
    ----------
    mean, variance : Tensor, shape (batch, outputs)
        The variance is not zero.

    Returns
    -------
    Tensor, shape (batch, outputs, 2)
        Float64, positive.
    """
    logits = torch.stack([mean, -mean], -1).double()
    return (1 + logits.exp()) / variance.double()[..., None]


def dirichlet_entropy(concentration: torch.Tensor) -> torch.Tensor:
    r"""Return the mean entropy of a Dirichlet's categorical distributions, ψ(α₀ + 1) − Σ α_k ψ(α_k + 1) / α₀.

    Parameters
    ----------
    concentration : Tensor, shape (..., classes)

    Returns
    -------
    Tensor, shape (...)
        Nats.
    """
    total = concentration.sum(-1, keepdim=True)
    inner = (concentration / total * torch.digamma(concentration + 1)).sum(-1)
    return torch.digamma(total[..., 0] + 1) - inner
