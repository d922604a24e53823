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

from wiu_pyro.errors import GuideError, a_name, near_matches
from wiu_pyro.infer.checks import check_new_data
from wiu_pyro.infer.config import check_whole
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.infer.link import LINKS
from wiu_pyro.infer.mixture import mixture_summaries
from wiu_pyro.infer.outputs import in_chunks, linearised_outputs, sampled_outputs, with_hits
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.summaries import INTERVAL, Summary, summarise_closed_form, summarise_draws
from wiu_pyro.metrics import mean_with_se
from wiu_pyro.nn import Batches, as_batches, holding

__all__ = ["INTERVAL", "Predictions", "predict"]

CHUNK_ELEMENTS = 2**25  # probabilities held at once: 128 MB in float32
BATCH_SIZE = 500  # of tensors and Datasets
KINDS = ("linearised", "sampled")
LEADING = ("log_likelihood", "member_mean", "member_variance")  # whose data stand along the second axis
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
        The same of the point estimate alone; of an ensemble, that of the first member's.
    link : {"mc", "probit", "bridge", "bridge_norm"}
        How class probabilities came from a linearised network's logits.
    lower, upper : ndarray, shape (N, C), or None
        Equal-tailed 95 % interval: of the class probability under the posterior, or of a new observation. None for
        several classes with the probit approximation, which speaks of the mean alone, for an ensemble with any closed
        form, and for the classes of an ensemble of point estimates, which has as many points as members.
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
        Of each datum under each draw; of an ensemble member by member, a point estimate being one draw.
    member_mean : ndarray, shape (members, N, C), or None
        What `mean` is of each member of an ensemble.
    member_variance : ndarray, shape (members, N, C), or None
        What `probability_variance`, or of a regression `functional_variance`, is of each member of an ensemble; None of
        point estimates, which have none.
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
    member_mean: np.ndarray | None = None
    member_variance: np.ndarray | None = None


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
        Of an ensemble, the mixture over its members is predicted: see `wiu_pyro.infer.mixture`.
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
    DataError, ModelError
        If the data do not fit the network.
    """
    if not hasattr(fit, "guide"):
        raise GuideError(
            f"The Fit that wiu_pyro.fit returned is needed, but this is {a_name(fit)}. For a guide without "
            "one, fit(model, guide, data, epochs=0) makes it."
        )
    kind = kind or getattr(fit.guide, "default_predictive", "sampled")
    _check(kind, link, num_samples)
    device = next(iter(fit.point_estimate.values())).device
    batches = as_batches(data, batch_size=BATCH_SIZE, device=device)
    if isinstance(fit.model, torch.nn.Module):
        fit.model.eval()
    with holding(fit.model, fit.unsampled):
        check_new_data(fit.model, fit.structure, fit.point_estimate, parts=next(iter(batches)))
        if fit.members:
            draws = {"num_samples": num_samples, "seed": seed, "elements": CHUNK_ELEMENTS}
            chunks = list(mixture_summaries(fit, batches, kind=kind, link=link, **draws))
        elif kind == "sampled":
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
    check_whole("num_samples", num_samples)
    if num_samples < 2:
        raise GuideError(f"num_samples must be at least 2 for an interval, but is {num_samples}. Pass for example 200.")


def _linearised(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[Summary]:
    generator = torch.Generator().manual_seed(seed)
    for outputs in linearised_outputs(fit, batches, num_samples=num_samples, generator=generator):
        yield summarise_draws(outputs, seed)


def _sampled(fit: Fit, batches: Batches, num_samples: int, seed: int) -> Iterator[Summary]:
    rows = max(1, CHUNK_ELEMENTS // (num_samples * max(fit.structure.num_outputs, 1)))
    for chunk in in_chunks(batches, rows):
        outputs = sampled_outputs(fit, chunk, num_samples=num_samples, seed=seed)
        yield with_hits(summarise_draws(outputs, seed), outputs)


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
    joined = {name: np.concatenate([chunk[name] for chunk in chunks], axis=int(name in LEADING)) for name in chunks[0]}
    return {name: value.astype(np.float32) for name, value in joined.items()}
