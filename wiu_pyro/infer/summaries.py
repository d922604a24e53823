"""What is said of the predictions for some data: means, intervals, entropies, variances; from draws or closed forms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from wiu_pyro.curvature import OutputLikelihood
from wiu_pyro.errors import GuideError, LikelihoodError
from wiu_pyro.infer.functional import FunctionalBatch
from wiu_pyro.infer.link import beta_concentration, dirichlet_concentration, dirichlet_entropy, moderated

__all__ = ["INTERVAL", "Outputs", "Summary", "class_numbers", "summarise_closed_form", "summarise_draws"]

INTERVAL = 0.95
TAIL = (1 - INTERVAL) / 2
Summary = dict[str, np.ndarray]


@dataclass
class Outputs:
    """Draws of the outputs of some data, and their labels.

    Attributes
    ----------
    likelihood : OutputLikelihood
    draws : Tensor, shape (num_samples, batch, outputs)
        Logits or means.
    point : Tensor, shape (batch, outputs)
        The same at the point estimate.
    labels : Tensor or None
    noise : Tensor, shape (num_samples or 1, batch, outputs), or None
        Scale of a Normal likelihood.
    variance : Tensor, shape (batch, outputs), or None
        Of the outputs, where it is known without draws.
    """

    likelihood: OutputLikelihood
    draws: torch.Tensor
    point: torch.Tensor
    labels: torch.Tensor | None
    noise: torch.Tensor | None = None
    variance: torch.Tensor | None = None


def summarise_draws(outputs: Outputs, seed: int) -> Summary:
    """Return the fields of `Predictions` from draws of the outputs.

    Parameters
    ----------
    outputs : Outputs
    seed : int
        Of the observation noise.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    LikelihoodError
        If the likelihood is none of categorical, Bernoulli, Normal.
    """
    kind = outputs.likelihood.kind
    if kind == "categorical":
        return _categorical_draws(outputs)
    if kind == "bernoulli":
        return _bernoulli_draws(outputs)
    if kind == "normal":
        return _normal_draws(outputs, seed)
    raise LikelihoodError(f"No predictive for a {kind} likelihood. Known: categorical, bernoulli, normal.")


def class_numbers(labels: torch.Tensor) -> torch.Tensor:
    """Return labels of classes as numbers, shape (batch,); those of a one-hot likelihood come as rows."""
    return labels.long() if labels.dim() == 1 else labels.argmax(-1)


def _interval(draws: torch.Tensor) -> Summary:
    lower, upper = np.quantile(draws.cpu().numpy(), [TAIL, 1 - TAIL], axis=0)
    return {"lower": lower, "upper": upper}


def _categorical_draws(outputs: Outputs) -> Summary:
    log_probs = torch.log_softmax(outputs.draws, -1)
    probs = log_probs.exp()
    found = {"mean": probs.mean(0), "probability_variance": probs.var(0), "point_mean": _softmax(outputs.point)}
    found |= _entropies(torch.special.entr(found["mean"]).sum(-1), -(probs * log_probs).sum(-1).mean(0))
    if outputs.labels is not None:
        index = class_numbers(outputs.labels)[None, :, None].expand(len(log_probs), -1, 1)
        found["log_likelihood"] = log_probs.gather(-1, index)[..., 0]
    if outputs.variance is not None:
        found["functional_variance"] = outputs.variance
    return {**_numpy(found), **_interval(probs)}


def _bernoulli_draws(outputs: Outputs) -> Summary:
    probs = torch.sigmoid(outputs.draws)
    found = {"mean": probs.mean(0), "probability_variance": probs.var(0), "point_mean": torch.sigmoid(outputs.point)}
    found |= _entropies(_bernoulli_entropy(found["mean"]), _bernoulli_entropy(probs).mean(0))
    if outputs.labels is not None:
        labels = outputs.labels.reshape(outputs.point.shape).to(probs.dtype)
        logits = outputs.draws
        found["log_likelihood"] = (labels * logits - torch.nn.functional.softplus(logits)).sum(-1)
    if outputs.variance is not None:
        found["functional_variance"] = outputs.variance
    return {**_numpy(found), **_interval(probs)}


def _entropies(total: torch.Tensor, expected: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"predictive_entropy": total, "expected_entropy": expected, "mutual_information": total - expected}


def _bernoulli_entropy(probs: torch.Tensor) -> torch.Tensor:
    return (torch.special.entr(probs) + torch.special.entr(1 - probs)).sum(-1)


def _normal_draws(outputs: Outputs, seed: int) -> Summary:
    generator = torch.Generator().manual_seed(seed + 1)
    noise_scale = outputs.noise
    noise_variance = noise_scale.square().mean(0)
    exact = outputs.variance is not None  # a linearised network's outputs are Normal: no Monte Carlo noise
    functional = outputs.variance if exact else outputs.draws.var(0)
    white = torch.randn(outputs.draws.shape, generator=generator).to(outputs.draws)
    observations = outputs.draws + noise_scale * white
    found = {
        "mean": outputs.point if exact else outputs.draws.mean(0),
        "point_mean": outputs.point,
        "functional_variance": functional,
        "noise_variance": noise_variance,
        "variance": functional + noise_variance,
    }
    if outputs.labels is not None:
        labels = outputs.labels.reshape(outputs.point.shape)
        density = torch.distributions.Normal(outputs.draws, noise_scale.expand_as(outputs.draws))
        found["log_likelihood"] = density.log_prob(labels).sum(-1)
    return {**_numpy(found), **_interval(observations)}


def summarise_closed_form(part: FunctionalBatch, link: str) -> Summary:
    """Return the fields of `Predictions` that probit approximation or Laplace bridge give, without draws.

    Parameters
    ----------
    part : FunctionalBatch
    link : {"probit", "bridge", "bridge_norm"}

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    GuideError
        If the likelihood is not one of classes.
    """
    kind = part.likelihood.kind
    if kind not in ("categorical", "bernoulli"):
        raise GuideError(
            f'link="{link}" approximates class probabilities, but the likelihood is {kind}: its linearised predictive '
            "has a closed form already. Leave link out."
        )
    variance = part.covariance.diagonal(dim1=-2, dim2=-1)
    squash = _softmax if kind == "categorical" else torch.sigmoid
    known = _numpy({"point_mean": squash(part.mean), "functional_variance": variance})
    if link == "probit":
        return known | _probit(kind, part.mean, variance)
    normalised = link == "bridge_norm"
    if kind == "categorical":
        return known | _dirichlet(dirichlet_concentration(part.mean, part.covariance, normalised=normalised))
    if normalised:  # two classes of centred logits: variance v / 4 each, and K / 2 = 1
        return known | _beta(beta_concentration(2 * part.mean / variance.sqrt(), torch.full_like(variance, 4.0)))
    return known | _beta(beta_concentration(part.mean, variance))


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, -1)


def _probit(kind: str, mean: torch.Tensor, variance: torch.Tensor) -> Summary:
    logits = moderated(mean, variance)
    if kind == "categorical":  # a formula for the mean alone
        probs = _softmax(logits)
        return _numpy({"mean": probs, "predictive_entropy": torch.special.entr(probs).sum(-1)})
    probs = torch.sigmoid(logits)
    reach = stats.norm.ppf(1 - TAIL) * variance.sqrt()
    found = {"mean": probs, "predictive_entropy": _bernoulli_entropy(probs)}
    # quantiles of a monotone function of one Normal variable are exact
    found |= {"lower": torch.sigmoid(mean - reach), "upper": torch.sigmoid(mean + reach)}
    return _numpy(found)


def _dirichlet(concentration: torch.Tensor) -> Summary:
    total = concentration.sum(-1, keepdim=True)
    mean = concentration / total
    found = _entropies(torch.special.entr(mean).sum(-1), dirichlet_entropy(concentration))
    found |= {"probability_variance": mean * (1 - mean) / (total + 1)}
    return _numpy({"mean": mean, "concentration": concentration} | found) | _beta_interval(
        concentration, total - concentration
    )


def _beta(concentration: torch.Tensor) -> Summary:
    mean = (concentration / concentration.sum(-1, keepdim=True))[..., 0]
    found = _entropies(_bernoulli_entropy(mean), dirichlet_entropy(concentration).sum(-1))
    found |= {"probability_variance": mean * (1 - mean) / (concentration.sum(-1) + 1)}
    return _numpy({"mean": mean} | found) | _beta_interval(concentration[..., 0], concentration[..., 1])


def _beta_interval(first: torch.Tensor, second: torch.Tensor) -> Summary:
    one, other = first.cpu().numpy(), second.cpu().numpy()
    return {"lower": stats.beta.ppf(TAIL, one, other), "upper": stats.beta.ppf(1 - TAIL, one, other)}


def _numpy(found: dict[str, torch.Tensor]) -> Summary:
    return {name: value.detach().cpu().numpy() for name, value in found.items()}
