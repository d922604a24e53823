r"""What a weight is worth: one small function for each criterion of pruning, all in one table.

A criterion gives each weight a score; weights of the lowest scores go first. With posterior mean m, sd s, prior N(m₀,
s₀²), posterior precision Λ:

- ``signal_to_noise``: \|m\| / s (Blundell et al. 2015; Graves 2011).
- ``kl``: KL of the weight's marginal from its prior, in nats. Low where data moved the weight little.
- ``bayesian_model_reduction``: log evidence lost when the weight's prior is shrunk to a spike at 0. Of two models that
  differ in their prior alone, the ratio of evidences is the full posterior's mean of the ratio of priors (Friston and
  Penny 2011, eq. 3 and 4); with δ(wᵢ) / p(wᵢ) in its place this is q(wᵢ = 0) / p(wᵢ = 0), with q the marginal: the
  Savage-Dickey ratio. For a Gaussian q and a Normal prior its log is ½ m₀²/s₀² − ½ m²/s² + log(s₀/s). With the marginal
  s it is exact for each weight by itself wherever q is the true posterior, the other weights following along their
  correlations; with the conditional s it is that of a model whose other weights are known. For a set of weights the
  changes add up only where q factorises over weights.
- ``magnitude``: \|m\|.
- ``brain_surgeon``: m² / (2 [H⁻¹]ᵢᵢ), the rise of the loss when the weight goes and the others follow (Hassibi and
  Stork 1993, eq. 5), with H the Kronecker-factored curvature with the prior's precision at the posterior mean. Of a
  KFAC Laplace posterior H is Λ, so this is half the square of the marginal signal-to-noise and ranks alike; half the
  square of the conditional one is the saliency of LeCun, Denker and Solla (1990).
- ``random``: chance.

References
----------
LeCun, Denker and Solla (1990), Optimal Brain Damage.
Hassibi and Stork (1993), Second order derivatives for network pruning: Optimal Brain Surgeon.
Friston and Penny (2011), Post hoc Bayesian model selection.
Graves (2011), Practical Variational Inference for Neural Networks, section 3.6.
Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from wiu_pyro.interventions.candidates import Candidates

__all__ = ["CRITERIA", "Criterion", "Evidence", "reduction"]

NODES = 32  # of Gauss and Hermite, for the KL from a prior that is not Normal


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes
    ----------
    weights : Candidates
    sd : Tensor, shape (num,)
        The sd asked for, marginal or conditional.
    generator : Generator
    brain_surgeon_variance : Tensor of shape (num,), or None
        Diagonal of the inverse curvature.
    """

    weights: Candidates
    sd: torch.Tensor
    generator: torch.Generator
    brain_surgeon_variance: torch.Tensor | None = None


@dataclass(frozen=True)
class Criterion:
    """One criterion of pruning.

    Attributes
    ----------
    score : callable
        From `Evidence` to a score of each weight, shape (num,); the lowest go first.
    needs : tuple of str
        What it cannot do without: ``"sd"``, ``"prior"``, ``"curvature"``.
    """

    score: Callable[[Evidence], torch.Tensor]
    needs: tuple[str, ...] = ()


def signal_to_noise(given: Evidence) -> torch.Tensor:
    """Return the absolute mean over the sd; infinite without an uncertainty."""
    return given.weights.mean.abs() / given.sd


def kl(given: Evidence) -> torch.Tensor:
    """Return the KL of each weight's Normal from its prior, nats: in closed form, or by Gauss-Hermite quadrature."""
    weights, sd = given.weights, given.sd
    nodes, masses = np.polynomial.hermite_e.hermegauss(NODES)
    cross = torch.zeros_like(sd)  # ∫ q log p, exact for a Normal prior
    for node, mass in zip(nodes, masses / masses.sum(), strict=True):
        cross += float(mass) * weights.log_prior(weights.mean + float(node) * sd)
    return -0.5 * (1 + math.log(2 * math.pi)) - sd.log() - cross


def reduction(given: Evidence) -> torch.Tensor:
    """Return the change in log evidence when each weight's prior becomes a spike at 0, nats; positive: a gain."""
    weights, sd = given.weights, given.sd
    log_q = -0.5 * (weights.mean / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
    return log_q - weights.log_prior(torch.zeros_like(weights.mean))


def bayesian_model_reduction(given: Evidence) -> torch.Tensor:
    """Return the log evidence that is lost with each weight, nats."""
    return -reduction(given)


def magnitude(given: Evidence) -> torch.Tensor:
    """Return the absolute mean."""
    return given.weights.mean.abs()


def brain_surgeon(given: Evidence) -> torch.Tensor:
    """Return the rise of the loss when each weight goes and the others follow, nats."""
    return given.weights.mean.square() / (2 * given.brain_surgeon_variance)


def random(given: Evidence) -> torch.Tensor:
    """Return chance."""
    return torch.rand(len(given.weights.mean), generator=given.generator, dtype=torch.float64)


CRITERIA: dict[str, Criterion] = {
    "signal_to_noise": Criterion(signal_to_noise, ("sd",)),
    "kl": Criterion(kl, ("sd", "prior")),
    "bayesian_model_reduction": Criterion(bayesian_model_reduction, ("sd", "prior")),
    "magnitude": Criterion(magnitude),
    "brain_surgeon": Criterion(brain_surgeon, ("curvature",)),
    "random": Criterion(random),
}
