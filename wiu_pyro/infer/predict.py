"""Predictions with their uncertainty: from sampled networks, or from the linearised one.

The entropy of the mean prediction splits into the expected entropy of a draw (aleatoric) and the mutual information
between prediction and weights (epistemic): Houlsby et al. (2011); Depeweg et al. (2018).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.infer.draws import draw_weights
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.infer.link import LINKS
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.summaries import (
    INTERVAL,
    Outputs,
    Summary,
    class_numbers,
    summarise_closed_form,
    summarise_draws,
)
from wiu_pyro.linalg import covariance_root
from wiu_pyro.metrics import mean_with_se
from wiu_pyro.nn import Batches, as_batches, holding, run_at

__all__ = ["INTERVAL", "Predictions", "predict"]

CHUNK_ELEMENTS = 2**25  # probabilities held at once: 128 MB in float32
BATCH_SIZE = 500  # of tensors and Datasets
KINDS = ("linearised", "sampled")
LOST_POINTS = 0.005  # share of the data below which lost accuracy is not worth a warning


@dataclass(frozen=True)
class Predictions:
    """Predictions for N data with C classes or outputs; entropies in nats.

    Attributes
    ----------
    kind : {"linearised", "sampled"}
    likelihood : str
    num_samples : int
        0 where nothing was drawn.
    mean : ndarray, shape (N, C)
        Class probabilities, or predictive means.
    point_mean : ndarray, shape (N, C)
        The same of the point estimate alone.
    link : {"mc", "probit", "bridge", "bridge_norm"}
        How class probabilities came from a linearised network's logits.
    lower, upper : ndarray, shape (N, C), or None
        Equal-tailed 95 % interval: of the class probability under the posterior, or of a new observation. None for
        several classes with the probit approximation, which speaks of the mean alone.
    predictive_entropy : ndarray, shape (N,), or None for regression
    expected_entropy, mutual_information : ndarray, shape (N,), or None for regression and the probit approximation
    functional_variance : ndarray, shape (N, C), or None for classes by sampled networks
        Variance of the network's outputs: of the logits, or of the means.
    variance, noise_variance : ndarray, shape (N, C), or None for classification
    probability_variance : ndarray, shape (N, C), or None for regression and the probit approximation
        Variance of the class probabilities under the posterior.
    concentration : ndarray, shape (N, C), or None
        Parameters of the Dirichlet over several classes that the Laplace bridge gives.
    log_likelihood : ndarray, shape (num_samples, N), or None without labels or without draws
        Of each datum under each draw.
    """

    kind: str
    likelihood: str
    num_samples: int
    mean: np.ndarray
    point_mean: np.ndarray
    link: str = "mc"
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    predictive_entropy: np.ndarray | None = None
    expected_entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None
    functional_variance: np.ndarray | None = None
    variance: np.ndarray | None = None
    noise_variance: np.ndarray | None = None
    probability_variance: np.ndarray | None = None
    concentration: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None


def predict(
    fit: Fit, data: Any, *, kind: str | None = None, link: str = "mc", num_samples: int = 200, seed: int = 0
) -> Predictions:
    """Predict with a fitted posterior.

    Warns where sampled networks of a Laplace posterior classify fewer of the labelled data right than its point
    estimate: by more than two standard errors of the paired difference, and by more than half a percentage point. The
    linearised predictive is the one such a posterior belongs to.

    Parameters
    ----------
    fit : Fit
    data : DataLoader, Dataset, tuple of tensors (x, y), or a tensor of inputs
    kind : {"linearised", "sampled"}, optional
        The guide's default when None: linearised for Laplace, sampled otherwise.
    link : {"mc", "probit", "bridge", "bridge_norm"}
        From the linearised network's Gaussian logits to class probabilities: softmax (or sigmoid) of draws from their
        full covariance; the probit approximation; the Laplace bridge, also with its variances normalised. See
        `wiu_pyro.infer.link`.
    num_samples : int
        Draws of the weights, or of the outputs.
    seed : int

    Returns
    -------
    Predictions

    Raises
    ------
    GuideError
        If `fit` is none, an option is unknown, the guide cannot be linearised, or a link is asked for where there is
        none.
    LikelihoodError
        If the likelihood is none of categorical, Bernoulli, Normal.
    """
    if not hasattr(fit, "guide"):
        raise GuideError(
            f"The Fit that wiu_pyro.fit returned is needed, but this is a {type(fit).__name__}. For a guide without "
            "one, fit(model, guide, data, epochs=0) makes it."
        )
    kind = kind or getattr(fit.guide, "default_predictive", "sampled")
    _check(kind, link, num_samples)
    device = next(iter(fit.point_estimate.values())).device
    batches = as_batches(data, batch_size=BATCH_SIZE, device=device)
    if isinstance(fit.model, torch.nn.Module):
        fit.model.eval()
    with holding(fit.model, fit.unsampled):
        if kind == "sampled":
            chunks = list(_sampled(fit, batches, num_samples, seed))
        elif link == "mc":
            chunks = list(_linearised(fit, batches, num_samples, seed))
        else:
            parts = functional_distribution(fit.model, fit.guide, batches)
            chunks = [summarise_closed_form(part, link) for part in parts]
    found = _gather(chunks)
    if kind == "sampled" and getattr(fit.guide, "default_predictive", "") == "linearised":
        _warn_of_lost_accuracy(found)
    found.pop("hits", None)
    drawn = num_samples if link == "mc" else 0
    return Predictions(kind=kind, likelihood=fit.structure.likelihood, num_samples=drawn, link=link, **found)


def _check(kind: str, link: str, num_samples: int) -> None:
    if kind not in KINDS:
        raise GuideError(f"Unknown kind of predictive '{kind}'. {near_matches(kind, KINDS)}")
    if link not in LINKS:
        raise GuideError(f"Unknown link '{link}'. {near_matches(link, LINKS)}")
    if kind == "sampled" and link != "mc":
        raise GuideError(
            f'link="{link}" is for the Gaussian logits of a linearised network, but the predictive is sampled. '
            'Leave link out, or use kind="linearised" with a Laplace guide.'
        )
    if num_samples < 2:
        raise GuideError(f"num_samples must be at least 2 for an interval, but is {num_samples}. Pass for example 200.")


def _linearised(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[Summary]:
    generator = torch.Generator().manual_seed(seed)
    for part in functional_distribution(fit.model, fit.guide, batches):
        root = covariance_root(part.covariance)
        noise = torch.randn(num_samples, *part.mean.shape, generator=generator).to(part.mean)
        draws = part.mean + torch.einsum("ncd,snd->snc", root, noise)
        known = getattr(part.likelihood, "noise_scale", None)
        labels = part.batch[1] if len(part.batch) > 1 else None
        noise_scale = None if known is None else known[None]
        variance = part.covariance.diagonal(dim1=-2, dim2=-1)
        yield summarise_draws(Outputs(part.likelihood, draws, part.mean, labels, noise_scale, variance), seed)


def _sampled(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[Summary]:
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


def _sampled_chunk(fit: Fit, chunk: list[tuple[torch.Tensor, ...]], num_samples: int, seed: int) -> Summary:
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
    found = summarise_draws(Outputs(points[0], torch.stack(draws), point, labels, noise), seed)
    if labels is not None and points[0].kind == "categorical":
        labels = class_numbers(labels)
    if labels is not None and points[0].kind != "normal":
        found["hits"] = np.stack([_hits(found[name], labels) for name in ("mean", "point_mean")], -1)
    return found


def _run(fit: Fit, weights: dict[str, torch.Tensor], batch: tuple[torch.Tensor, ...]) -> OutputLikelihood:
    with torch.no_grad():
        trace, _ = run_at(fit.model, weights, batch)
        return read(trace.nodes[fit.structure.observed]["fn"])


def _hits(probabilities: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    """Return the share of each datum's labels that its probabilities predict, shape (N,)."""
    truth = labels.cpu().numpy()
    if truth.ndim == 1 and probabilities.shape[1] > 1:
        return (probabilities.argmax(1) == truth).astype(float)
    return ((probabilities > 0.5) == (truth.reshape(probabilities.shape) > 0.5)).mean(1)


def _warn_of_lost_accuracy(found: dict[str, Any]) -> None:
    if "hits" not in found or len(found["hits"]) < 2:
        return
    lost = mean_with_se(found["hits"][:, 1] - found["hits"][:, 0])
    if lost.value > max(2 * lost.se, LOST_POINTS):
        sampled, point = 100 * found["hits"].mean(0)
        warnings.warn(
            f"Networks sampled from this Laplace posterior classify {sampled:.1f} % of the data right, the point "
            f"estimate {point:.1f} % ({100 * lost.value:.1f} ± {100 * lost.se:.1f} points, paired): they leave the "
            'region where the approximation holds. Use the linearised predictive, kind="linearised", which is the '
            "default.",
            stacklevel=3,
        )


def _gather(chunks: list[Summary]) -> dict[str, Any]:
    joined = {
        name: np.concatenate([chunk[name] for chunk in chunks], axis=1 if name == "log_likelihood" else 0)
        for name in chunks[0]
    }
    return {name: value.astype(np.float32) for name, value in joined.items()}
