r"""The scales of a mean-field posterior's prior, learned while it is trained.

The ELBO as a function of a Normal prior's variance is greatest at :math:`\sigma^2 = \overline{m^2 + s^2}`, the mean
over the weights that share it (empirical Bayes; Graves 2011, section 5). Taken at once, the closed form over-prunes:
means and sds of the first epochs are still those of the start, the prior closes around them, and units leave that the
data would have kept. So it waits for `burn_in` epochs, and then goes only a part of the way, in the log, after each
`every` of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from wiu_pyro.errors import GuideError, PriorError, a_name
from wiu_pyro.guides.mean_field import AutoMeanField
from wiu_pyro.guides.prior_scales import PriorRecord, PriorTuning, by_site, groups_of, scaled_structure
from wiu_pyro.nn import ModelStructure

__all__ = ["EmpiricalBayes"]


class EmpiricalBayes:
    """Moves the prior's scales of a mean-field guide towards their closed form, between epochs.

    Parameters
    ----------
    guide : AutoMeanField
        Its `prior_scales` are what training goes on under.
    tuning : PriorTuning
        With ``by="empirical-bayes"``; `learning_rate` is the part of the way that is gone each time.
    structure : ModelStructure
        With the model's own priors.

    Raises
    ------
    PriorError
        If a weight with a posterior has another prior than a fixed Normal.
    """

    def __init__(self, guide: AutoMeanField, tuning: PriorTuning, structure: ModelStructure) -> None:
        self.guide, self.tuning, self.structure = guide, tuning, structure
        prior = guide.flat_prior()
        sites = [name for name, *_ in guide.sites() if name in structure.parameter_sites]
        if structure.dependent_priors:
            raise _no_closed_form(structure.dependent_priors[0], "one that depends on another site")
        for name, place, _ in guide.sites():
            if name in sites and not prior.normal[place].all():
                raise _no_closed_form(name, "another")
        self.groups = groups_of(structure, sites, tuning.per)

    def after_epoch(self, number: int) -> None:
        """Move the scales, if it is time; `number` counts the epochs from 1."""
        since = number - self.tuning.burn_in
        if since < 0 or since % self.tuning.every:
            return
        present = {name: self.guide.prior_scales.get(sites[0], 1.0) for name, sites in self.groups.items()}
        part = self.tuning.learning_rate
        found = {
            name: math.exp((1 - part) * math.log(present[name]) + part * math.log(best))
            for name, best in self.best().items()
        }
        self.guide.set_prior_scales(by_site(found, self.groups))

    def best(self) -> dict[str, float]:
        """Return the multiplier of the model's prior sd at which the ELBO is greatest, by group."""
        guide = self.guide
        prior, places = guide.flat_prior(), {name: place for name, place, _ in guide.sites()}
        with torch.no_grad():
            loc, scale = guide._loc_scale()
            own = prior.scale.double()
            squares = ((loc - prior.loc).double().square() + scale.double().square()) / own.square()
            found = {}
            for name, sites in self.groups.items():
                mean = torch.cat([squares[places[site]] for site in sites]).mean().item()
                found[name] = math.sqrt(mean) * guide.prior_scales.get(sites[0], 1.0)
        return found

    def state(self) -> dict[str, Any]:
        """Return what a training needs to go on later: nothing, for the scales are the guide's."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""

    def end(self) -> None:
        """Write down on the guide what prior it ends under."""
        self.guide.structure = scaled_structure(self.structure, self.guide.prior_scales)
        scales = dict(self.guide.prior_scales)
        groups = {name: scales.get(sites[0], 1.0) for name, sites in self.groups.items()}
        self.guide.prior_record = PriorRecord(scales=scales, trained=scales, groups=groups, tuning=self.tuning)


def refuse_other_guides(guide: Any) -> None:
    """Raise GuideError where a guide's prior has no closed form of this kind."""
    if not isinstance(guide, AutoMeanField):
        raise GuideError(
            f"Empirical Bayes needs a mean-field posterior, but this is {a_name(guide)}. Use AutoMeanField, "
            'or tune_prior="marginal-likelihood" with a Laplace guide.'
        )


def _no_closed_form(site: str, kind: str) -> PriorError:
    return PriorError(
        f"Empirical Bayes needs Normal priors, whose best scale has a closed form, but site '{site}' has {kind}. Use "
        "wiu_pyro.nn.Normal or FanInNormal, or leave tune_prior out."
    )
