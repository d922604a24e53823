"""Mean and sd of each weight's prior: what uncertainty is shown relative to."""

from __future__ import annotations

import torch

from wiu_pyro.errors import PriorError
from wiu_pyro.nn.log_uniform import is_improper
from wiu_pyro.nn.structure import ModelStructure

__all__ = ["prior_moments"]


def prior_moments(structure: ModelStructure) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and sd of the prior of each weight, by site.

    Parameters
    ----------
    structure : ModelStructure

    Returns
    -------
    dict of site to (Tensor, Tensor)
        Each of the site's shape; an improper prior has mean 0 and sd NaN.

    Raises
    ------
    PriorError
        If a prior has no finite, positive sd, or none of its own: one that depends on another site.
    """
    dependent = [site for site in structure.parameter_sites if site in structure.dependent_priors]
    if dependent:
        raise PriorError(
            f"Uncertainty is shown relative to each weight's prior sd, but the prior of '{dependent[0]}' depends on "
            "another site or on a learned parameter, so that its sd is another in each draw. Fix the prior, for "
            "example at the scale's posterior mean."
        )
    found = {}
    for site in structure.parameter_sites:
        prior = structure.priors[site]
        shape = prior.shape()
        if is_improper(prior):
            found[site] = prior.mean.expand(shape).detach(), prior.variance.expand(shape).detach()
            continue
        try:
            mean, sd = prior.mean.expand(shape), prior.stddev.expand(shape)
        except (NotImplementedError, AttributeError):
            mean = sd = torch.full(shape, torch.nan)
        if not (torch.isfinite(mean).all() and torch.isfinite(sd).all() and (sd > 0).all()):
            raise PriorError(
                "A prior with a finite mean and a positive sd is needed, since uncertainty is shown relative to it, "
                f"but that of '{site}' ({type(prior).__name__}) has none. Choose for example wiu_pyro.nn.Normal(1.0)."
            )
        found[site] = mean.detach(), sd.detach()
    return found
