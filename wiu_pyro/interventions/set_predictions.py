"""Predictions by sampled networks with only some layers uncertain, for many sets of layers with the same draws.

A draw of all weights serves every set: layers outside it are put back to the posterior's centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.errors import LikelihoodError
from wiu_pyro.infer import Fit, draw_weights
from wiu_pyro.nn import Batches, holding, run_at

__all__ = [
    "SetPrediction",
    "Sets",
    "Tally",
    "centred",
    "held",
    "joined",
    "labels_of",
    "outputs_at",
    "responses",
    "sampled_predictions",
]

Sets = Mapping[str, tuple[str, ...]]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SetPrediction:
    """Predictions for N data by one posterior.

    Attributes
    ----------
    mean : ndarray, shape (N, C)
        Class probabilities, of two classes both; or means.
    output_variance : ndarray, shape (N,)
        Variance of the network's outputs, summed over them: of logits relative to their mean over the classes, or of
        means.
    response_variance : ndarray, shape (N,)
        Variance of the class probabilities, summed over classes; of a regression that of the means.
    entropy, mutual_information : ndarray, shape (N,), or None for a regression
        Nats.
    log_density : ndarray, shape (N,), or None
        Of the observed targets of a regression, in nats.
    output_spread, response_spread : ndarray, shape (num_samples,), or None
        Squared distance of each draw from the centre, summed over the data: whence the noise of the variances. None
        where the variance is exact.
    """

    mean: np.ndarray
    output_variance: np.ndarray
    response_variance: np.ndarray
    entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None
    log_density: np.ndarray | None = None
    output_spread: np.ndarray | None = None
    response_spread: np.ndarray | None = None


def responses(kind: str, outputs: torch.Tensor) -> torch.Tensor:
    """Return what the network says: probabilities of all classes, or the means.

    Parameters
    ----------
    kind : str
        Of the likelihood.
    outputs : Tensor, shape (..., outputs)

    Returns
    -------
    Tensor, shape (..., classes or outputs)

    Raises
    ------
    LikelihoodError
        If the likelihood is none of categorical, Bernoulli with one output, Normal.
    """
    if kind == "categorical":
        return torch.softmax(outputs, -1)
    if kind == "bernoulli" and outputs.shape[-1] == 1:
        return torch.sigmoid(torch.cat([-outputs, outputs], -1))
    if kind == "normal":
        return outputs
    raise LikelihoodError(
        f"A categorical, Normal, or Bernoulli likelihood with one output is needed, but it is {kind} with "
        f"{outputs.shape[-1]}. Use one of these."
    )


def centred(kind: str, outputs: torch.Tensor) -> torch.Tensor:
    """Return outputs without what says nothing: of logits the mean over the classes is taken off."""
    return outputs - outputs.mean(-1, keepdim=True) if kind == "categorical" else outputs


class Tally:
    """Sums over draws, for some data; differences from the centre's outputs, so that variances keep their digits."""

    def __init__(self, likelihood: OutputLikelihood, centre: torch.Tensor, labels: torch.Tensor | None) -> None:
        self.kind, self.labels, self.likelihood = likelihood.kind, labels, likelihood
        self.base = (centred(self.kind, centre).double(), responses(self.kind, centre).double())
        self.count = 0
        self.spreads: list[list[torch.Tensor]] = [[], []]
        self.sums = [[torch.zeros_like(base), torch.zeros_like(base)] for base in self.base]
        self.entropy = torch.zeros(len(centre), dtype=torch.float64, device=centre.device)
        self.log_density = torch.full_like(self.entropy, -torch.inf)

    def add(self, outputs: torch.Tensor, noise: torch.Tensor | None) -> None:
        """Add draws of the outputs, (draws, N, outputs); `noise` is the scale of a Normal likelihood, (N, outputs)."""
        said = responses(self.kind, outputs)
        self.count += len(outputs)
        pair = (centred(self.kind, outputs), said)
        for sums, spread, base, values in zip(self.sums, self.spreads, self.base, pair, strict=True):
            shifted = values.double() - base
            spread.append(shifted.square().sum((1, 2)))
            sums[0] += shifted.sum(0)
            sums[1] += shifted.square().sum(0)
        if self.kind != "normal":
            self.entropy += torch.special.entr(said).sum((0, -1))
        elif self.labels is not None:
            targets = self.labels.reshape(outputs.shape[1:])
            density = torch.distributions.Normal(outputs, noise).log_prob(targets).sum(-1).double()
            self.log_density = torch.logaddexp(self.log_density, torch.logsumexp(density, 0))

    def found(self) -> dict[str, np.ndarray]:
        """Return the fields of `SetPrediction` for these data."""
        variances = [
            ((squares - total.square() / self.count) / max(1, self.count - 1)).clamp(min=0).sum(-1)
            for total, squares in self.sums
        ]
        mean = self.base[1] + self.sums[1][0] / self.count
        found = {"mean": mean, "output_variance": variances[0], "response_variance": variances[1]}
        found |= {f"{name}_spread": torch.cat(self.spreads[place]) for place, name in enumerate(("output", "response"))}
        if self.kind != "normal":
            mean = mean.clamp(min=0)
            entropy = torch.special.entr(mean).sum(-1)
            found |= {"mean": mean, "entropy": entropy}
            found["mutual_information"] = (entropy - self.entropy / self.count).clamp(min=0)
        elif self.labels is not None:
            found["log_density"] = self.log_density - np.log(self.count)
        return {name: value.cpu().numpy() for name, value in found.items()}


def sampled_predictions(
    fit: Fit, batches: Batches, sets: Sets, *, num_samples: int, seed: int
) -> dict[str, SetPrediction]:
    """Predict by sampled networks with only the layers of each set uncertain.

    Parameters
    ----------
    fit : Fit
    batches : Batches
    sets : mapping of str to tuple of str
        Layers by name of the set.
    num_samples : int
        Draws, the same for every set.
    seed : int

    Returns
    -------
    dict of str to SetPrediction
    """
    owner = {site: layer for site, (layer, _) in fit.structure.parameter_sites.items()}
    parts = list(batches)
    with held(fit):
        points = [outputs_at(fit, fit.point_estimate, part) for part in parts]
        tallies = {
            name: [Tally(point, point.output, labels_of(part)) for point, part in zip(points, parts, strict=True)]
            for name in sets
        }
        for draw in draw_weights(fit.guide, num_samples=num_samples, seed=seed, batch=parts[0]):
            for name, layers in sets.items():
                weights = {
                    site: value if site not in owner or owner[site] in layers else fit.point_estimate[site]
                    for site, value in draw.items()
                }
                for tally, part in zip(tallies[name], parts, strict=True):
                    one = outputs_at(fit, weights, part)
                    tally.add(one.output[None], getattr(one, "noise_scale", None))
    return {name: joined([tally.found() for tally in found]) for name, found in tallies.items()}


def held(fit: Fit) -> Any:
    """Return a context in which the network is in evaluation mode and holds what the fit ended with."""
    if isinstance(fit.model, torch.nn.Module):
        fit.model.eval()
    return holding(fit.model, fit.unsampled)


def outputs_at(fit: Fit, weights: Weights, batch: tuple[torch.Tensor, ...]) -> OutputLikelihood:
    """Return the likelihood of a batch at given weights, with the outputs in it."""
    with torch.no_grad():
        trace, _ = run_at(fit.model, weights, batch)
        return read(trace.nodes[fit.structure.observed]["fn"])


def labels_of(batch: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """Return the labels of a batch, where it has some."""
    return batch[1] if len(batch) > 1 else None


def joined(parts: Sequence[dict[str, np.ndarray]]) -> SetPrediction:
    """Return the predictions of all batches as one."""
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return SetPrediction(
        **{
            name: np.sum(held, 0) if name.endswith("_spread") else np.concatenate(held)
            for name, held in columns.items()
        }
    )
