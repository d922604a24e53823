"""Draws of a network's outputs under its posterior, chunk by chunk: by the linearised network, or by sampled ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.infer.draws import draw_weights
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.summaries import Outputs, Summary, class_numbers
from wiu_pyro.linalg import covariance_root
from wiu_pyro.nn import run_at

__all__ = ["in_chunks", "linearised_outputs", "point_outputs", "sampled_outputs", "with_hits"]

Batch = tuple[torch.Tensor, ...]


def in_chunks(batches: Iterable[Batch], rows: int) -> Iterator[list[Batch]]:
    """Yield batches together until they have at least `rows` data.

    Parameters
    ----------
    batches : iterable of tuple of Tensor
    rows : int

    Yields
    ------
    list of tuple of Tensor
    """
    chunk: list[Batch] = []
    size = 0
    for batch in batches:
        chunk.append(batch)
        size += len(batch[0])
        if size >= rows:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def linearised_outputs(fit: Fit, batches: Any, *, num_samples: int, generator: torch.Generator) -> Iterator[Outputs]:
    """Yield draws of the linearised network's outputs, batch by batch.

    Parameters
    ----------
    fit : Fit
    batches : Batches or list of tuple of Tensor
    num_samples : int
    generator : Generator
        On the CPU; moves on.

    Yields
    ------
    Outputs
    """
    for part in functional_distribution(fit.model, fit.guide, batches):
        root = covariance_root(part.covariance)
        noise = torch.randn(num_samples, *part.mean.shape, generator=generator).to(part.mean)
        draws = part.mean + torch.einsum("ncd,snd->snc", root, noise)
        known = getattr(part.likelihood, "noise_scale", None)
        labels = part.batch[1] if len(part.batch) > 1 else None
        noise_scale = None if known is None else known[None]
        variance = part.covariance.diagonal(dim1=-2, dim2=-1)
        yield Outputs(part.likelihood, draws, part.mean, labels, noise_scale, variance)


def sampled_outputs(fit: Fit, chunk: list[Batch], *, num_samples: int, seed: int) -> Outputs:
    """Return the outputs of networks sampled from the posterior, for all batches of a chunk.

    Parameters
    ----------
    fit : Fit
    chunk : list of tuple of Tensor
    num_samples, seed : int

    Returns
    -------
    Outputs
    """
    draws = draw_weights(fit.guide, num_samples=num_samples, seed=seed, batch=chunk[0])
    return _outputs(fit, chunk, draws)


def point_outputs(fit: Fit, chunk: list[Batch]) -> Outputs:
    """Return the outputs at the point estimate as the only draw."""
    return _outputs(fit, chunk, [fit.point_estimate])


def _outputs(fit: Fit, chunk: list[Batch], weights: Iterable[dict[str, torch.Tensor]]) -> Outputs:
    draws, noises = [], []
    for one in weights:
        parts = [_run(fit, one, batch) for batch in chunk]
        draws.append(torch.cat([part.output for part in parts]))
        if hasattr(parts[0], "noise_scale"):
            noises.append(torch.cat([part.noise_scale for part in parts]))
    points = [_run(fit, fit.point_estimate, batch) for batch in chunk]
    point = torch.cat([part.output for part in points])
    labels = torch.cat([batch[1] for batch in chunk]) if len(chunk[0]) > 1 else None
    return Outputs(points[0], torch.stack(draws), point, labels, torch.stack(noises) if noises else None)


def _run(fit: Fit, weights: dict[str, torch.Tensor], batch: Batch) -> OutputLikelihood:
    with torch.no_grad():
        trace, _ = run_at(fit.model, weights, batch)
        return read(trace.nodes[fit.structure.observed]["fn"])


def with_hits(found: Summary, outputs: Outputs) -> Summary:
    """Add `hits`, of classes with labels: the share of each datum's labels that mean and point predict, (N, 2)."""
    labels, kind = outputs.labels, outputs.likelihood.kind
    if labels is None or kind == "normal":
        return found
    labels = class_numbers(labels) if kind == "categorical" else labels
    return {**found, "hits": np.stack([_hits(found[name], labels) for name in ("mean", "point_mean")], -1)}


def _hits(probabilities: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    """Return the share of each datum's labels that its probabilities predict, shape (N,)."""
    truth = labels.cpu().numpy()
    if truth.ndim == 1 and probabilities.shape[1] > 1:
        return (probabilities.argmax(1) == truth).astype(float)
    return ((probabilities > 0.5) == (truth.reshape(probabilities.shape) > 0.5)).mean(1)
