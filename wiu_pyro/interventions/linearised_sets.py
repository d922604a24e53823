"""Predictions by the linearised network with only some layers uncertain, for many sets of layers with the same noise.

Of independent layers the covariance of the outputs is a sum over them, so that the data are gone through once a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch

from wiu_pyro.curvature import OutputLikelihood
from wiu_pyro.guides import AutoBlockNormal
from wiu_pyro.guides.gaussian import read_gaussian
from wiu_pyro.infer import Fit, functional_distribution
from wiu_pyro.interventions.cut_blocks import are_independent, marginal_guide
from wiu_pyro.interventions.set_predictions import SetPrediction, Sets, Tally, held, joined, labels_of, outputs_at
from wiu_pyro.nn import Batches

__all__ = ["covariance_trace", "draws_of", "linearised_covariances", "linearised_predictions", "symmetric_root"]

CHUNK_ELEMENTS = 2**23  # outputs drawn at once
Cut = Callable[[AutoBlockNormal, Collection[str]], AutoBlockNormal]
Part = tuple[OutputLikelihood, torch.Tensor, torch.Tensor | None]  # of a batch: likelihood, mean outputs, labels


def linearised_covariances(
    fit: Fit, batches: Batches, sets: Sets, *, cut: Cut = marginal_guide
) -> tuple[list[Part], dict[str, torch.Tensor]]:
    """Return the outputs of a linearised network and their covariance with only the layers of each set uncertain.

    Parameters
    ----------
    fit : Fit
        With the guide of a Laplace approximation.
    batches : Batches
    sets : mapping of str to tuple of str
    cut : callable
        Maps the guide and the layers of a set to the guide of these layers alone; of independent layers there is only
        one.

    Returns
    -------
    parts : list of (OutputLikelihood, Tensor, Tensor or None)
        Of each batch: likelihood, mean outputs (batch, outputs), labels.
    covariances : dict of str to Tensor, shape (N, outputs, outputs)
    """
    guide = fit.guide
    independent = are_independent(read_gaussian(guide, fit.structure))
    wanted = {layer: (layer,) for layers in sets.values() for layer in layers} if independent else dict(sets)
    alone: dict[str, torch.Tensor] = {}
    parts = _mean_outputs(fit, batches)
    for name, layers in wanted.items():
        if layers:
            other = cut(guide, layers)
            with held(fit):
                found = [part.covariance for part in functional_distribution(fit.model, other, batches)]
            alone[name] = torch.cat(found)
    mean = torch.cat([part[1] for part in parts])
    nothing = mean.new_zeros(*mean.shape, mean.shape[-1])
    if not independent:
        return parts, {name: alone.get(name, nothing) for name in sets}
    return parts, {name: sum((alone[layer] for layer in layers), nothing) for name, layers in sets.items()}


def _mean_outputs(fit: Fit, batches: Batches) -> list[Part]:
    with held(fit):
        found = [(outputs_at(fit, fit.point_estimate, batch), labels_of(batch)) for batch in batches]
    return [(likelihood, likelihood.output, labels) for likelihood, labels in found]


def linearised_predictions(
    fit: Fit,
    batches: Batches,
    sets: Sets,
    *,
    num_samples: int,
    seed: int,
    cut: Cut = marginal_guide,
) -> dict[str, SetPrediction]:
    """Predict by the linearised network with only the layers of each set uncertain; the output's variance is exact.

    Parameters
    ----------
    fit : Fit
    batches : Batches
    sets : mapping of str to tuple of str
    num_samples : int
    seed : int
    cut : callable
        As for `linearised_covariances`.

    Returns
    -------
    dict of str to SetPrediction
    """
    parts, covariances = linearised_covariances(fit, batches, sets, cut=cut)
    results = {}
    for name in sets:
        generator = torch.Generator().manual_seed(seed)  # the same noise for every set
        whole, start = [], 0
        for likelihood, mean, labels in parts:
            covariance = covariances[name][start : start + len(mean)]
            start += len(mean)
            tally = Tally(likelihood, mean, labels)
            # symmetric: sets of about the same covariance get about the same draws from the same noise
            for draws in draws_of(mean, symmetric_root(covariance), num_samples, generator):
                tally.add(draws, getattr(likelihood, "noise_scale", None))
            exact = covariance_trace(likelihood.kind, covariance).cpu().double().numpy()
            found = tally.found() | {"output_variance": exact}
            del found["output_spread"]
            whole.append(found)
        results[name] = joined(whole)
    return results


def covariance_trace(kind: str, covariance: torch.Tensor) -> torch.Tensor:
    """Return the variance of outputs (N, outputs, outputs) as `centred` leaves them, summed over them, shape (N,)."""
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace - covariance.sum((-2, -1)) / covariance.shape[-1] if kind == "categorical" else trace


def symmetric_root(covariance: torch.Tensor) -> torch.Tensor:
    """Return the symmetric R with R R = Σ: covariances (N, outputs, outputs) that are near have roots that are near."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT


def draws_of(
    mean: torch.Tensor, root: torch.Tensor, num_samples: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Yield draws of outputs with these means and roots of the covariance, (some, N, outputs) at a time."""
    step = max(2, CHUNK_ELEMENTS // mean.numel())
    for start in range(0, num_samples, step):
        size = (min(step, num_samples - start), *mean.shape)
        noise = torch.randn(size, generator=generator).to(mean)
        yield mean + torch.einsum("ncd,snd->snc", root.to(mean), noise)
