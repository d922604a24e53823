"""The prior's scales tuned by the evidence while a network is trained.

After Immer et al. (2021), *Scalable Marginal Likelihood Estimation for Model Selection in Deep Learning*, algorithm 1:
every few epochs the curvature is computed, the log scales take gradient steps on the evidence, and training goes on
under the new prior, so that the weights end up trained under the prior they are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.evidence import Evidence
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.prior_scales import PriorTuning, by_site, groups_of
from wiu_pyro.guides.prior_tuning import by_group, refuse_negative_curvature
from wiu_pyro.nn import Batches

__all__ = ["OnlineTuning", "untuned"]


@contextmanager
def untuned(guide: LaplaceGuide) -> Iterator[None]:
    """Let `laplace_approximation` leave the prior as it is, inside the context."""
    tuning, guide.tuning = guide.tuning, None
    try:
        yield
    finally:
        guide.tuning = tuning


class OnlineTuning:
    """Gradient steps on the log scales of the prior, between the epochs of a point estimate's training.

    Parameters
    ----------
    guide : LaplaceGuide
        With ``tune_when="online"``; its `prior_scales` are what training goes on under.
    batches : Batches
        The training data, for the curvature.

    Raises
    ------
    GuideError
        If the guide does not know the curvature asked for on the way.
    """

    def __init__(self, guide: LaplaceGuide, batches: Batches) -> None:
        if guide.tuning.by != "marginal-likelihood":
            raise GuideError(
                f"A Laplace guide's prior is tuned online by its evidence, but {type(guide).__name__} has tune_prior="
                f'"{guide.tuning.by}". Use tune_prior="marginal-likelihood", or AutoMeanField for empirical Bayes.'
            )
        self.guide, self.batches = guide, batches
        self.tuning: PriorTuning = guide.tuning
        self.logs: torch.Tensor | None = None
        self.optimiser: torch.optim.Optimizer | None = None
        self.config = guide.config
        asked = self.tuning.curvature
        if asked is not None:
            if asked not in guide.curvature_kinds:
                raise GuideError(
                    f"{type(guide).__name__} has no curvature '{asked}' to tune its prior by. "
                    f"{near_matches(asked, guide.curvature_kinds)}"
                )
            tolerance = guide.config.column_tolerance if asked == "ggn" else 0.0
            self.config = replace(guide.config, curvature=asked, column_tolerance=tolerance)

    def after_epoch(self, number: int) -> None:
        """Change the prior, if it is time; `number` counts the epochs from 1. The model must be in evaluation."""
        since = number - self.tuning.burn_in
        if since < 0 or since % self.tuning.every:
            return
        evidence = Evidence(self._posterior())
        if self.config.curvature == "hessian":
            refuse_negative_curvature(evidence)
        groups = groups_of(evidence.posterior.structure, list(evidence.present), self.tuning.per)
        if self.logs is None or self.optimiser is None:
            device = evidence.posterior.loc.device
            present = [math.log(evidence.present[sites[0]]) for sites in groups.values()]
            self._begin(torch.tensor(present, dtype=torch.float64, device=device, requires_grad=True))
        for _ in range(self.tuning.steps):
            self.optimiser.zero_grad()
            scales = dict(zip(groups, self.logs.exp(), strict=True))
            (-evidence(by_group(scales, groups))).backward()
            self.optimiser.step()
        found = dict(zip(groups, self.logs.detach().exp().tolist(), strict=True))
        self.guide.set_prior_scales(by_site(found, groups))

    def end(self) -> None:
        """Leave it at the last change: the guide's posterior writes down its prior itself."""

    def state(self) -> dict[str, Any]:
        """Return what a training needs to go on later."""
        if self.logs is None or self.optimiser is None:
            return {}
        return {"logs": self.logs.detach(), "optimiser": self.optimiser.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        if state:
            self._begin(state["logs"].clone().requires_grad_())
            self.optimiser.load_state_dict(state["optimiser"])

    def _begin(self, logs: torch.Tensor) -> None:
        self.logs, self.optimiser = logs, torch.optim.Adam([logs], lr=self.tuning.learning_rate)

    def _posterior(self) -> AutoBlockNormal:
        guide, config = self.guide, self.guide.config
        guide.config = self.config
        try:
            with untuned(guide):
                return guide.laplace_approximation(self.batches)
        finally:
            guide.config = config
