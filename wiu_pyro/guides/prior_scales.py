"""Multipliers of a prior's sd: which weights share one, what they were, and what is written of them.

A multiplier is always relative to the prior the model gives, so that 1 is that prior, whatever came in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import pyro.distributions as dist
import torch

from wiu_pyro.errors import GuideError, PriorError, near_matches
from wiu_pyro.nn import ModelStructure, base_distribution

__all__ = ["PriorRecord", "PriorTuning", "by_site", "groups_of", "match_scales", "read_tuning", "scaled_structure"]

PER = ("network", "layer", "site")
BY = ("marginal-likelihood", "cross-validation", "empirical-bayes")
WHEN = ("after", "online")
EMPIRICAL_BAYES: dict[str, Any] = {"per": "layer", "when": "online", "burn_in": 10, "learning_rate": 0.1}  # by name
SAME = 0.01  # relative difference below which two scales count as one

Scale = float | torch.Tensor


@dataclass(frozen=True)
class PriorTuning:
    """How the prior's scales are tuned.

    Attributes
    ----------
    by : {"marginal-likelihood", "cross-validation", "empirical-bayes"}
        What is maximised: the Laplace evidence of the training data, the log predictive density of held-out data, or
        the ELBO of a mean-field posterior, whose best scale has a closed form.
    per : {"network", "layer", "site"}
        What shares one multiplier of the prior's sd.
    when : {"after", "online"}
        Once the weights are trained; or while they are, which go on under the new prior each time.
    burn_in, every : int
        Online: epochs before the first change of the prior, and between two of them.
    steps : int
        Online: gradient steps on the log multipliers at each change.
    learning_rate : float
        Online: of these steps (Adam); by empirical Bayes, the part of the way to the closed form, in the log, that is
        gone at each change.
    curvature : str or None
        Online: the kind of curvature on the way, such as ``"fisher_empirical"``; the guide's own when None.
    grid : tuple of float
        Cross-validation: multipliers to choose from.
    """

    by: str = "marginal-likelihood"
    per: str = "network"
    when: str = "after"
    burn_in: int = 1
    every: int = 1
    steps: int = 50
    learning_rate: float = 0.05
    curvature: str | None = None
    grid: tuple[float, ...] = tuple(10 ** (k / 4) for k in range(-8, 5))

    def __post_init__(self) -> None:
        for name, value, known in (
            ("tune_prior", self.by, BY),
            ("tune_per", self.per, PER),
            ("tune_when", self.when, WHEN),
        ):
            if value not in known:
                raise GuideError(f"{name} has no choice '{value}'. {near_matches(str(value), known)}")
        if self.by == "cross-validation" and self.when == "online":
            raise GuideError(
                'A prior is tuned during training by its evidence only, but tune_prior is "cross-validation". '
                'Use tune_when="after", or tune_prior="marginal-likelihood".'
            )
        if self.by == "empirical-bayes" and self.when != "online":
            raise GuideError(
                "Empirical Bayes changes the prior while the posterior is trained, but tune_when is "
                f'\'{self.when}\'. Use PriorTuning("empirical-bayes", when="online"), or tune_prior="empirical-bayes".'
            )
        for name, least in {"burn_in": 0, "every": 1, "steps": 1}.items():
            if getattr(self, name) < least:
                raise GuideError(f"{name} must be at least {least}, but is {getattr(self, name)}. Leave it out.")
        _positive_scales({"learning_rate": self.learning_rate, **{f"grid[{i}]": g for i, g in enumerate(self.grid)}})
        if not self.grid:
            raise GuideError("Cross-validation needs multipliers to choose from, but grid is empty. Leave it out.")


def read_tuning(
    by: str | PriorTuning | Mapping[str, Any] | None, per: str | None, when: str | None
) -> PriorTuning | None:
    """Return the tuning that the options of a guide or a fit ask for; None for none."""
    if by is None:
        if per is not None or when is not None:
            raise GuideError(
                "tune_per and tune_when say how a prior is tuned, but tune_prior is not given. Pass "
                'tune_prior="marginal-likelihood".'
            )
        return None
    asked = {name: value for name, value in {"per": per, "when": when}.items() if value is not None}
    by = PriorTuning(**by) if isinstance(by, Mapping) else by
    if isinstance(by, PriorTuning):
        return replace(by, **asked)
    return PriorTuning(by, **{**EMPIRICAL_BAYES, **asked}) if by == "empirical-bayes" else PriorTuning(by, **asked)


@dataclass(frozen=True)
class PriorRecord:
    """Under which prior a posterior stands, and how that was found.

    Attributes
    ----------
    scales : dict of site to float
        Multiplier of the sd that the model's prior has; sites that are not named have 1.
    trained : dict of site to float
        The same of the prior under which the weights were trained, as far as the guide knows: 1 for weights from
        elsewhere.
    groups : dict of str to float
        The multipliers as they were tuned, by layer, site or ``"network"``; empty where nothing was tuned.
    tuning : PriorTuning or None
    objective : tuple of float or None
        What was maximised, in nats, before and after: the log evidence, or the mean log predictive density. With an
        averaged curvature it is the evidence's formula, whose gradient is the lower bound's, but no evidence.
    previous : PriorRecord or None
        What stood before the last change.
    """

    scales: dict[str, float] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    tuning: PriorTuning | None = None
    objective: tuple[float, float] | None = None
    previous: PriorRecord | None = field(default=None, repr=False)

    @property
    def changed(self) -> bool:
        """Whether the prior is another than the model's."""
        return any(abs(scale - 1) > SAME for scale in self.scales.values())

    @property
    def consistent(self) -> bool:
        """Whether the prior is the one under which the weights were trained."""
        names = {*self.scales, *self.trained}
        return all(abs(math.log(self.scales.get(name, 1.0) / self.trained.get(name, 1.0))) <= SAME for name in names)

    def describe(self) -> str:
        """Return how the prior differs from the model's, in words; empty where it does not and nothing was tuned."""
        if self.tuning is None:
            return f"sd × {_by_value(self.scales)}, set by hand" if self.changed else ""
        how = (
            self.tuning.by
            if self.tuning.by == "cross-validation"
            else self.tuning.by.replace("-", " ").replace("bayes", "Bayes")
        )
        when = {"after": "after the fit", "online": "during training"}[self.tuning.when]
        return f"sd × {_by_value(self.groups)}, tuned by {how}, {when}"


def _by_value(scales: Mapping[str, float]) -> str:
    """Return ``"0.5"`` where all scales are one, else ``"0.5 (conv1), 2 (fc1)"``."""
    if len({f"{scale:.3g}" for scale in scales.values()}) == 1:
        return f"{next(iter(scales.values())):.3g}"
    return ", ".join(f"{scale:.3g} ({name})" for name, scale in scales.items())


def _positive_scales(scales: Mapping[str, float]) -> None:
    for name, scale in scales.items():
        if not (math.isfinite(float(scale)) and float(scale) > 0):
            raise PriorError(f"A prior's scale must be positive, but that for '{name}' is {float(scale):g}. Pass 1.0.")


def groups_of(structure: ModelStructure, sites: list[str], per: str) -> dict[str, tuple[str, ...]]:
    """Return the sites that share a multiplier, by the group's name.

    Parameters
    ----------
    structure : ModelStructure
    sites : list of str
        Those with a posterior.
    per : {"network", "layer", "site"}

    Returns
    -------
    dict of str to tuple of str
    """
    if per == "network":
        return {"network": tuple(sites)}
    layer_of = {site: layer for site, (layer, _) in structure.parameter_sites.items()}
    groups: dict[str, tuple[str, ...]] = {}
    for site in sites:
        name = site if per == "site" else layer_of[site]
        groups[name] = (*groups.get(name, ()), site)
    return groups


def by_site(scales: Mapping[str, float], groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return the multiplier of each site from those of the groups."""
    return {site: scales[name] for name, sites in groups.items() for site in sites}


def match_scales(
    asked: Scale | Mapping[str, Scale], structure: ModelStructure, sites: list[str]
) -> dict[str, tuple[str, Scale]]:
    """Return the pattern and the scale of each site that is named.

    Parameters
    ----------
    asked : float, scalar Tensor, or mapping of pattern to such
        One for all; or by layer or site name with ``*`` and ``?``: the first match wins.
    structure : ModelStructure
    sites : list of str
        Those with a posterior.

    Returns
    -------
    dict of site to (pattern, scale)

    Raises
    ------
    PriorError
        If a scale is not positive, or a pattern matches nothing.
    """
    patterns = dict(asked) if isinstance(asked, Mapping) else {"*": asked}
    _positive_scales({name: float(torch.as_tensor(scale).detach()) for name, scale in patterns.items()})
    layer_of = {site: layer for site, (layer, _) in structure.parameter_sites.items()}
    names = {site: (site, layer_of.get(site, site)) for site in sites}
    found: dict[str, tuple[str, Scale]] = {}
    for pattern, scale in patterns.items():
        matching = [site for site in sites if any(fnmatchcase(name, pattern) for name in names[site])]
        if not matching:
            known = sorted({name for pair in names.values() for name in pair})
            raise PriorError(
                f"A pattern of prior scales must match a layer or site with a posterior, but '{pattern}' matches none. "
                f"{near_matches(pattern, known)}"
            )
        for site in matching:
            found.setdefault(site, (pattern, scale))
    return found


def scaled_structure(structure: ModelStructure, scales: Mapping[str, float]) -> ModelStructure:
    """Return the structure with the Normal priors of some sites made wider or narrower around their mean."""
    priors: dict[str, Any] = dict(structure.priors)
    for site, scale in scales.items():
        base: Any = base_distribution(priors[site])
        shape = priors[site].shape()
        priors[site] = dist.Normal(base.loc.expand(shape), (base.scale * scale).expand(shape)).to_event(len(shape))
    return replace(structure, priors=priors)
