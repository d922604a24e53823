"""Predictions with their uncertainty: from sampled networks, or from the linearised one.

The entropy of the mean prediction splits into the expected entropy of a draw (aleatoric) and the mutual information
between prediction and weights (epistemic): Houlsby et al. (2011); Depeweg et al. (2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.errors import GuideError, LikelihoodError, near_matches
from wiu_pyro.infer.draws import draw_weights
from wiu_pyro.infer.fit import Fit
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.nn import Batches, as_batches, holding, run_at

__all__ = ["INTERVAL", "Predictions", "predict"]

INTERVAL = 0.95
CHUNK_ELEMENTS = 2**25  # probabilities held at once: 128 MB in float32
KINDS = ("linearised", "sampled")


@dataclass(frozen=True)
class Predictions:
    """Predictions for N data with C classes or outputs; entropies in nats.

    Attributes
    ----------
    kind : {"linearised", "sampled"}
    likelihood : str
    num_samples : int
    mean : ndarray, shape (N, C)
        Class probabilities, or predictive means.
    lower, upper : ndarray, shape (N, C)
        Equal-tailed 95 % interval: of the class probability under the posterior, or of a new observation.
    point_mean : ndarray, shape (N, C)
        The same of the point estimate alone.
    predictive_entropy, expected_entropy, mutual_information : ndarray, shape (N,), or None for regression
    variance, functional_variance, noise_variance : ndarray, shape (N, C), or None for classification
    log_likelihood : ndarray, shape (num_samples, N), or None without labels
        Of each datum under each draw.
    """

    kind: str
    likelihood: str
    num_samples: int
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    point_mean: np.ndarray
    predictive_entropy: np.ndarray | None = None
    expected_entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None
    variance: np.ndarray | None = None
    functional_variance: np.ndarray | None = None
    noise_variance: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None


def predict(
    fit: Fit, data: Any, *, kind: str | None = None, num_samples: int = 200, seed: int = 0, batch_size: int = 500
) -> Predictions:
    """Predict with a fitted posterior.

    Parameters
    ----------
    fit : Fit
    data : DataLoader, Dataset, tuple of tensors (x, y), or a tensor of inputs
    kind : {"linearised", "sampled"}, optional
        The guide's default when None: linearised for Laplace, sampled otherwise.
    num_samples : int
        Draws of the weights, or of the outputs.
    seed : int
    batch_size : int
        Data per forward pass, for tensors and Datasets.

    Returns
    -------
    Predictions

    Raises
    ------
    GuideError
        If the kind is unknown, or the guide cannot be linearised.
    LikelihoodError
        If the likelihood is none of categorical, Bernoulli, Normal.
    """
    kind = kind or getattr(fit.guide, "default_predictive", "sampled")
    if kind not in KINDS:
        raise GuideError(f"Unknown kind of predictive '{kind}'. {near_matches(kind, KINDS)}")
    if num_samples < 2:
        raise GuideError(f"num_samples must be at least 2 for an interval, but is {num_samples}. Pass for example 200.")
    device = next(iter(fit.point_estimate.values())).device
    batches = as_batches(data, batch_size=batch_size, device=device)
    if isinstance(fit.model, torch.nn.Module):
        fit.model.eval()
    summarised = _linearised if kind == "linearised" else _sampled
    with holding(fit.model, fit.unsampled):
        chunks = list(summarised(fit, batches, num_samples, seed))
    return _gather(kind, fit.structure.likelihood, num_samples, chunks)


@dataclass
class _Outputs:
    """Draws of the outputs of some data, and their labels."""

    likelihood: OutputLikelihood
    draws: torch.Tensor  # (num_samples, batch, outputs): logits or means
    point: torch.Tensor  # (batch, outputs)
    labels: torch.Tensor | None
    noise: torch.Tensor | None = None  # (num_samples or 1, batch, outputs), for a Normal likelihood
    variance: torch.Tensor | None = None  # (batch, outputs), of the outputs, where it is known without draws


def _linearised(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    generator = torch.Generator().manual_seed(seed)
    for part in functional_distribution(fit.model, fit.guide, batches):
        values, vectors = torch.linalg.eigh(part.covariance.double())
        root = (vectors * values.clamp(min=0).sqrt()[:, None, :]).to(part.mean.dtype)
        noise = torch.randn(num_samples, *part.mean.shape, generator=generator).to(part.mean)
        draws = part.mean + torch.einsum("ncd,snd->snc", root, noise)
        known = getattr(part.likelihood, "noise_scale", None)
        labels = part.batch[1] if len(part.batch) > 1 else None
        noise_scale = None if known is None else known[None]
        variance = part.covariance.diagonal(dim1=-2, dim2=-1)
        yield _summarise(_Outputs(part.likelihood, draws, part.mean, labels, noise_scale, variance), seed)


def _sampled(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    rows = max(1, CHUNK_ELEMENTS // (num_samples * max(fit.structure.num_outputs, 1)))
    chunk: list[tuple[torch.Tensor, ...]] = []
    size = 0
    for batch in batches:
        chunk.append(batch)
        size += len(batch[0])
        if size >= rows:
            yield _sampled_chunk(fit, chunk, num_samples, seed)
            chunk, size = [], 0
    if chunk:
        yield _sampled_chunk(fit, chunk, num_samples, seed)


def _sampled_chunk(
    fit: Fit, chunk: list[tuple[torch.Tensor, ...]], num_samples: int, seed: int
) -> dict[str, np.ndarray]:
    draws, noises = [], []
    for weights in draw_weights(fit.guide, num_samples=num_samples, seed=seed, batch=chunk[0]):
        parts = [_run(fit, weights, batch) for batch in chunk]
        draws.append(torch.cat([part.output for part in parts]))
        if hasattr(parts[0], "noise_scale"):
            noises.append(torch.cat([part.noise_scale for part in parts]))
    points = [_run(fit, fit.point_estimate, batch) for batch in chunk]
    point = torch.cat([part.output for part in points])
    labels = torch.cat([batch[1] for batch in chunk]) if len(chunk[0]) > 1 else None
    noise = torch.stack(noises) if noises else None
    return _summarise(_Outputs(points[0], torch.stack(draws), point, labels, noise), seed)


def _run(fit: Fit, weights: dict[str, torch.Tensor], batch: tuple[torch.Tensor, ...]) -> OutputLikelihood:
    with torch.no_grad():
        trace, _ = run_at(fit.model, weights, batch)
        return read(trace.nodes[fit.structure.observed]["fn"])


def _summarise(outputs: _Outputs, seed: int) -> dict[str, np.ndarray]:
    kind = outputs.likelihood.kind
    if kind == "categorical":
        return _summarise_categorical(outputs)
    if kind == "bernoulli":
        return _summarise_bernoulli(outputs)
    if kind == "normal":
        return _summarise_normal(outputs, seed)
    raise LikelihoodError(f"No predictive for a {kind} likelihood. Known: categorical, bernoulli, normal.")


def _interval(draws: torch.Tensor) -> dict[str, np.ndarray]:
    tail = (1 - INTERVAL) / 2
    lower, upper = np.quantile(draws.cpu().numpy(), [tail, 1 - tail], axis=0)
    return {"lower": lower, "upper": upper}


def _summarise_categorical(outputs: _Outputs) -> dict[str, np.ndarray]:
    log_probs = torch.log_softmax(outputs.draws, -1)
    probs = log_probs.exp()
    found = {"mean": probs.mean(0), "point_mean": torch.softmax(outputs.point, -1)}
    expected = -(probs * log_probs).sum(-1).mean(0)
    total = torch.special.entr(found["mean"]).sum(-1)
    found |= {"predictive_entropy": total, "expected_entropy": expected, "mutual_information": total - expected}
    if outputs.labels is not None:
        index = outputs.labels.long()[None, :, None].expand(len(log_probs), -1, 1)
        found["log_likelihood"] = log_probs.gather(-1, index)[..., 0]
    return {**_numpy(found), **_interval(probs)}


def _summarise_bernoulli(outputs: _Outputs) -> dict[str, np.ndarray]:
    probs = torch.sigmoid(outputs.draws)
    found = {"mean": probs.mean(0), "point_mean": torch.sigmoid(outputs.point)}

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return (torch.special.entr(p) + torch.special.entr(1 - p)).sum(-1)

    total, expected = entropy(found["mean"]), entropy(probs).mean(0)
    found |= {"predictive_entropy": total, "expected_entropy": expected, "mutual_information": total - expected}
    if outputs.labels is not None:
        labels = outputs.labels.reshape(outputs.point.shape).to(probs.dtype)
        logits = outputs.draws
        found["log_likelihood"] = (labels * logits - torch.nn.functional.softplus(logits)).sum(-1)
    return {**_numpy(found), **_interval(probs)}


def _summarise_normal(outputs: _Outputs, seed: int) -> dict[str, np.ndarray]:
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


def _numpy(found: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in found.items()}


def _gather(kind: str, likelihood: str, num_samples: int, chunks: list[dict[str, np.ndarray]]) -> Predictions:
    joined = {
        name: np.concatenate([chunk[name] for chunk in chunks], axis=1 if name == "log_likelihood" else 0)
        for name in chunks[0]
    }
    arrays: dict[str, Any] = {name: value.astype(np.float32) for name, value in joined.items()}
    return Predictions(kind=kind, likelihood=likelihood, num_samples=num_samples, **arrays)
