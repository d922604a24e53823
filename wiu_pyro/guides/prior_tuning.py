"""The prior's scales of greatest evidence, after a fit: no pass over the data.

What is maximised is `wiu_pyro.guides.evidence.Evidence`, where MacKay (1992) and Immer et al. (2021) are cited.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch

from wiu_pyro.errors import CurvatureError, GuideError
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.evidence import Evidence
from wiu_pyro.guides.prior_scales import PriorRecord, PriorTuning, Scale, by_site, groups_of

__all__ = ["by_group", "refuse_negative_curvature", "tune_prior", "tuned", "warn_inconsistent"]

SCAN = torch.logspace(-2, 2, 17, dtype=torch.float64).tolist()  # multipliers looked at before the gradient is followed
LIMIT = math.log(1e4)  # of a log multiplier, either way


def tune_prior(posterior: AutoBlockNormal, *, per: str = "network") -> AutoBlockNormal:
    """Return the posterior under the prior of the greatest evidence: no pass over the data.

    Parameters
    ----------
    posterior : AutoBlockNormal
        What ``laplace_approximation`` returned.
    per : {"network", "layer", "site"}
        What shares one multiplier of the prior's sd.

    Returns
    -------
    AutoBlockNormal
        Its `prior_record` has the multipliers and the evidence before and after.

    Raises
    ------
    GuideError
        If the posterior is no Laplace approximation, or the pass over the data saw no labels.
    PriorError
        If the structure cannot take a prior with scales for each site.
    CurvatureError
        If a Hessian has negative curvature.

    Warns
    -----
    UserWarning
        If the prior found is another than that under which the weights were trained.
    """
    tuning = PriorTuning(per=per)
    evidence = Evidence(posterior)
    groups = groups_of(posterior.structure, list(evidence.present), per)
    logs = maximise(evidence, groups)
    scales = {name: math.exp(value) for name, value in logs.items()}
    with torch.no_grad():
        objective = (evidence().item(), evidence(by_group(scales, groups)).item())
    record = PriorRecord(groups=scales, tuning=tuning, objective=objective)
    found = posterior.with_prior(by_site(scales, groups), record=record)
    warn_inconsistent(found)
    return found


def tuned(posterior: AutoBlockNormal, tuning: PriorTuning) -> AutoBlockNormal:
    """Return what ``laplace_approximation`` makes of a posterior by the tuning its guide asks for.

    Parameters
    ----------
    posterior : AutoBlockNormal
        Under the prior that the weights were trained with.
    tuning : PriorTuning

    Returns
    -------
    AutoBlockNormal

    Raises
    ------
    GuideError
        If the tuning takes what only `wiu_pyro.fit` has: held-out data, or the training of the weights.
    """
    if tuning.by == "cross-validation":
        raise GuideError(
            "Cross-validation of the prior needs held-out data, which laplace_approximation does not have. Use "
            "wiu_pyro.fit(model, guide, data, validation=(x, y))."
        )
    if tuning.when == "after":
        return tune_prior(posterior, per=tuning.per)
    if not posterior.prior_scales:
        raise GuideError(
            "A prior is tuned online while wiu_pyro.fit trains the weights, but these were not trained so. Use "
            'wiu_pyro.fit with epochs, or tune_when="after".'
        )
    evidence = Evidence(posterior)
    groups = groups_of(posterior.structure, list(evidence.present), tuning.per)
    with torch.no_grad():
        objective = (evidence(1.0).item(), evidence().item())
    scales = {name: evidence.present[sites[0]] for name, sites in groups.items()}
    posterior.prior_record = replace(posterior.prior_record, groups=scales, tuning=tuning, objective=objective)
    return posterior


def by_group(scales: Mapping[str, Scale], groups: Mapping[str, tuple[str, ...]]) -> dict[str, Scale]:
    """Return patterns for `Evidence` under which each group keeps one scale."""
    if set(groups) == {"network"}:
        return {"*": scales["network"]}
    return {name: scales[name] for name in groups}


def refuse_negative_curvature(evidence: Evidence) -> None:
    """Raise where the evidence has no maximum, because the curvature is not positive semi-definite.

    Where prior and negative curvature cancel the precision is singular, and the evidence infinite.

    Raises
    ------
    CurvatureError
        If the curvature is so negative that a prior `SCAN`'s last times as wide does not outweigh it.
    """
    with torch.no_grad():
        if torch.isnan(evidence(SCAN[-1])):
            raise CurvatureError(
                "The prior can be tuned where the evidence has a maximum, but here the Hessian has negative curvature: "
                "the wider the prior, the nearer is their sum to a singular one, whose evidence is infinite. Train "
                'further, or use curvature="ggn", which is positive semi-definite.'
            )


def maximise(evidence: Evidence, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return the log multipliers of the greatest evidence, by group: a scan of common ones, then L-BFGS."""
    refuse_negative_curvature(evidence)
    with torch.no_grad():
        values = [evidence(scale).item() for scale in SCAN]
    start = math.log(SCAN[values.index(max(values))])
    free = torch.full((len(groups),), start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [free], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    size = sum(block.precision.numel for block in evidence.posterior.blocks)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        scales = dict(zip(groups, _bounded(free).exp(), strict=True))
        loss = -evidence(by_group(scales, groups)) / size
        loss.backward()
        return loss.detach()

    optimiser.step(closure)
    found = dict(zip(groups, _bounded(free.detach()).tolist(), strict=True))
    for name, value in found.items():
        if abs(value) > 0.9 * LIMIT:
            warnings.warn(
                f"The evidence has no maximum in the prior scale of '{name}' between {math.exp(-LIMIT):.0e} and "
                f"{math.exp(LIMIT):.0e} times the model's; {math.exp(value):.3g} is taken. Leave it out, or tune fewer "
                'scales: tune_per="network".',
                stacklevel=3,
            )
    return found


def _bounded(free: torch.Tensor) -> torch.Tensor:
    return LIMIT * torch.tanh(free / LIMIT)


def warn_inconsistent(posterior: AutoBlockNormal) -> None:
    """Warn where the prior in force is another than that under which the weights were trained."""
    record = posterior.prior_record
    if not record.consistent:
        warnings.warn(
            f"The posterior's prior is the model's with {record.describe()}: another than the one the weights were "
            "trained under, so that its mean is not its mode. To train under the tuned prior, give it to the model, or "
            'use tune_when="online".',
            stacklevel=3,
        )
