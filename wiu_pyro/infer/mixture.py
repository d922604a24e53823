"""Predictions of an ensemble: the mixture over its members, all alike.

The mean is the mean over members; predictive entropy that of the mean; expected entropy the mean over members and their
draws; mutual information the difference, which therefore holds what the members disagree in as well as what each of
them does not know. Intervals are quantiles of all members' draws together. Of point estimates there are no draws: the
mixture has as many points as members, and no 95 % interval of class probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.special import entr

from wiu_pyro.guides.point_estimate import is_point_estimate
from wiu_pyro.infer.ensemble import STRIDE
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.infer.outputs import Batch, in_chunks, linearised_outputs, point_outputs, sampled_outputs, with_hits
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.summaries import Outputs, Summary, summarise_closed_form, summarise_draws
from wiu_pyro.nn import Batches, holding

__all__ = ["mixture_summaries"]

MOMENTS = {"categorical": "probability_variance", "bernoulli": "probability_variance", "normal": "functional_variance"}


def mixture_summaries(
    fit: Fit, batches: Batches, *, kind: str, link: str, num_samples: int, seed: int, elements: int
) -> Iterator[Summary]:
    """Yield the fields of `Predictions` for an ensemble, chunk by chunk.

    Parameters
    ----------
    fit : Fit
        With members.
    batches : Batches
    kind : {"linearised", "sampled"}
    link : str
    num_samples, seed : int
        Draws of each member.
    elements : int
        Outputs held at once, about.

    Yields
    ------
    dict of str to ndarray
    """
    rows = max(1, elements // (num_samples * len(fit.members) * max(fit.structure.num_outputs, 1)))
    generators = [torch.Generator().manual_seed(seed + STRIDE * number) for number in range(len(fit.members))]
    for chunk in in_chunks(batches, rows):
        if link != "mc":
            yield _closed(fit.members, chunk, link)
            continue
        found = []
        for number, (member, generator) in enumerate(zip(fit.members, generators, strict=True)):
            if isinstance(member.model, torch.nn.Module):
                member.model.eval()
            with holding(member.model, member.unsampled):
                own = seed + STRIDE * number
                found.append(_outputs(member, chunk, kind, num_samples=num_samples, seed=own, generator=generator))
        yield _mixed(found, seed, num_samples=num_samples, points=_are_points(fit.members))


def _are_points(members: Sequence[Fit]) -> bool:
    return is_point_estimate(members[0].guide)


def _outputs(
    member: Fit, chunk: list[Batch], kind: str, *, num_samples: int, seed: int, generator: torch.Generator
) -> Outputs:
    if kind == "linearised":
        parts = list(linearised_outputs(member, chunk, num_samples=num_samples, generator=generator))
        return parts[0] if len(parts) == 1 else _together(parts)
    if is_point_estimate(member.guide):
        return point_outputs(member, chunk)
    return sampled_outputs(member, chunk, num_samples=num_samples, seed=seed)


def _together(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of several batches as those of one."""

    def joined(name: str, dim: int) -> torch.Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values, dim)

    return replace(
        parts[0],
        draws=joined("draws", 1),
        point=joined("point", 0),
        labels=joined("labels", 0),
        noise=joined("noise", 1),
        variance=joined("variance", 0),
    )


def _mixed(found: Sequence[Outputs], seed: int, *, num_samples: int, points: bool) -> Summary:
    """Return the mixture's fields from the draws of each member."""
    first = found[0]
    noise = None if first.noise is None else torch.cat([one.noise.expand_as(one.draws) for one in found])
    pooled = replace(first, draws=torch.cat([one.draws for one in found]), noise=noise, variance=None)
    summary = summarise_draws(pooled, seed)
    kind = first.likelihood.kind
    if points and kind == "normal":  # a Normal around each point: draws of it for the interval
        many = replace(
            pooled,
            draws=pooled.draws.repeat_interleave(num_samples, 0),
            noise=noise.repeat_interleave(num_samples, 0),
            labels=None,
        )
        summary |= {name: value for name, value in summarise_draws(many, seed).items() if name in ("lower", "upper")}
    elif points:
        summary = {name: value for name, value in summary.items() if name not in ("lower", "upper")}
    means, variances = zip(*(_moments(one) for one in found), strict=True)
    summary |= _of_members(np.stack(means), None if points else np.stack(variances), MOMENTS[kind])
    if kind == "normal":
        summary["variance"] = summary["functional_variance"] + summary["noise_variance"]
    elif first.variance is not None:
        outputs = np.stack([one.point.cpu().numpy() for one in found])
        within = np.stack([one.variance.cpu().numpy() for one in found])
        summary["functional_variance"] = within.mean(0) + outputs.var(0)
    return with_hits(summary, pooled)


def _moments(one: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of class probabilities, or of the network's outputs, under one member."""
    if one.likelihood.kind == "normal" and one.variance is not None:
        return one.point.cpu().numpy(), one.variance.cpu().numpy()
    draws = one.draws
    if one.likelihood.kind != "normal":
        draws = torch.softmax(draws, -1) if one.likelihood.kind == "categorical" else torch.sigmoid(draws)
    variance = draws.var(0) if len(draws) > 1 else torch.zeros_like(draws[0])
    return draws.mean(0).cpu().numpy(), variance.cpu().numpy()


def _of_members(means: np.ndarray, variances: np.ndarray | None, name: str) -> Summary:
    """Return mean and variance of the mixture, and those of each member, (members, N, C)."""
    within = 0.0 if variances is None else variances.mean(0)
    found = {"mean": means.mean(0), name: within + means.var(0), "member_mean": means}
    return found if variances is None else {**found, "member_variance": variances}


def _closed(members: Sequence[Fit], chunk: list[Batch], link: str) -> Summary:
    """Return the mixture of members whose class probabilities come in closed form, without intervals."""
    found = []
    for member in members:
        with holding(member.model, member.unsampled):
            parts = [
                (part.mean, summarise_closed_form(part, link))
                for part in functional_distribution(member.model, member.guide, chunk)
            ]
        columns = {name: np.concatenate([own[name] for _, own in parts]) for name in parts[0][1]}
        found.append((torch.cat([mean for mean, _ in parts]).cpu().numpy(), columns))
    outputs = np.stack([mean for mean, _ in found])
    stacked = {name: np.stack([columns[name] for _, columns in found]) for name in found[0][1]}
    summary = _of_members(stacked["mean"], stacked.get("probability_variance"), "probability_variance")
    if "probability_variance" not in stacked:
        summary.pop("probability_variance")  # within a member it is not known
    summary |= {
        "point_mean": stacked["point_mean"][0],
        "functional_variance": stacked["functional_variance"].mean(0) + outputs.var(0),
        "predictive_entropy": _entropy(summary["mean"], members[0].structure.likelihood),
    }
    if "expected_entropy" in stacked:
        expected = stacked["expected_entropy"].mean(0)
        summary |= {
            "expected_entropy": expected,
            "mutual_information": summary["predictive_entropy"] - expected,
        }
    return summary


def _entropy(probabilities: np.ndarray, kind: str) -> np.ndarray:
    """Return the entropy of class probabilities, or the sum over independent binary outputs, (N,) in nats."""
    both = entr(probabilities) if kind == "categorical" else entr(probabilities) + entr(1 - probabilities)
    return both.sum(-1)
