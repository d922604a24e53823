"""Log densities of a draw, in nats: the prior's, and log q of a guide on the scale on which the model samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoContinuous, AutoDelta, AutoLaplaceApproximation, AutoNormal
from torch.distributions import biject_to

from wiu_pyro.linalg import row_norms
from wiu_pyro.nn import ModelStructure, base_distribution

__all__ = ["log_density", "log_prior"]

Weights = Mapping[str, torch.Tensor]
LogDensity = Callable[[Weights], float]


def log_density(guide: Any) -> tuple[LogDensity | None, str]:
    """Return the function that gives log q of a draw, or None and why there is none.

    Parameters
    ----------
    guide : AutoGuide
        One of the toolkit's guides, or of Pyro's; set up, so that it knows its sites.

    Returns
    -------
    function : callable or None
        Maps the value of each site to a float: the log density in nats, computed in float64. Sites that the guide holds
        at a point do not count.
    reason : str
        Why there is no density; empty where there is one.
    """
    name = type(guide).__name__
    if isinstance(guide, AutoDelta) or type(guide) is AutoLaplaceApproximation:
        return None, f"{name} is a point estimate, which has no density"
    if getattr(guide, "no_density", ""):
        return None, guide.no_density
    if callable(getattr(guide, "log_prob", None)):
        return _of_own_guide(guide), ""
    if isinstance(guide, AutoNormal):
        return _of_auto_normal(guide), ""
    if isinstance(guide, AutoContinuous):
        return _of_flat_vector(guide), ""
    return None, f"{name} does not give the density of a draw"


def _of_own_guide(guide: Any) -> LogDensity:
    hidden = getattr(guide, "point_sites", ())

    def function(weights: Weights) -> float:
        return float(guide.log_prob(dict(weights))) - _log_jacobian(guide, weights, hidden)

    return torch.no_grad()(function)


def _of_auto_normal(guide: AutoNormal) -> LogDensity:
    def function(weights: Weights) -> float:
        total = 0.0
        for name, site in guide.prototype_trace.iter_stochastic_nodes():
            free = biject_to(site["fn"].support).inv(weights[name]).double()
            loc, scale = guide._get_loc_and_scale(name)
            total += float(dist.Normal(loc.double(), scale.double()).log_prob(free).sum())
        return total - _log_jacobian(guide, weights, ())

    return torch.no_grad()(function)


def _of_flat_vector(guide: AutoContinuous) -> LogDensity:
    with torch.no_grad():
        own = guide.get_posterior()
        posterior = _in_double(own)

    def function(weights: Weights) -> float:
        nodes = guide.prototype_trace.iter_stochastic_nodes()
        flat = torch.cat([biject_to(site["fn"].support).inv(weights[name]).reshape(-1) for name, site in nodes])
        flat = flat if posterior is own else flat.double()  # a flow's networks take their own dtype alone
        return float(posterior.log_prob(flat)) - _log_jacobian(guide, weights, ())

    return torch.no_grad()(function)


def _in_double(posterior: Any) -> Any:
    """Return a Gaussian with float64 parameters; another distribution as it is."""
    if isinstance(posterior, dist.MultivariateNormal):
        return dist.MultivariateNormal(posterior.loc.double(), scale_tril=posterior.scale_tril.double())
    if isinstance(posterior, dist.LowRankMultivariateNormal):
        parts = (posterior.loc, posterior.cov_factor, posterior.cov_diag)
        return dist.LowRankMultivariateNormal(*(part.double() for part in parts))
    base = getattr(posterior, "base_dist", None)
    if isinstance(base, dist.Normal):
        return dist.Normal(base.loc.double(), base.scale.double()).to_event(posterior.reinterpreted_batch_ndims)
    return posterior


def _log_jacobian(guide: Any, weights: Weights, hidden: tuple[str, ...]) -> float:
    """Return log |d value / d free| over all sites: zero for sites on the real line."""
    total = 0.0
    for name, site in guide.prototype_trace.iter_stochastic_nodes():
        transform = biject_to(site["fn"].support)
        if name in hidden or _is_identity(transform):
            continue
        free = transform.inv(weights[name]).double()
        total += float(transform.log_abs_det_jacobian(free, transform(free)).sum())
    return total


def _is_identity(transform: Any) -> bool:
    while hasattr(transform, "base_transform"):
        transform = transform.base_transform
    return transform == torch.distributions.transforms.identity_transform


def log_prior(structure: ModelStructure) -> LogDensity:
    """Return the function that gives the log prior density of a draw, summed over its sites.

    Parameters
    ----------
    structure : ModelStructure

    Returns
    -------
    callable
        Maps the value of each site to a float, in nats; sums are taken in float64.
    """
    terms = {site: _site_log_prior(prior) for site, prior in structure.priors.items()}

    def function(weights: Weights) -> float:
        return sum(terms[site](value.detach()) for site, value in weights.items())

    return torch.no_grad()(function)


def _site_log_prior(prior: Any) -> Callable[[torch.Tensor], float]:
    base = base_distribution(prior)
    if type(base).__name__ != "Normal":
        return lambda value: float(prior.log_prob(value.double()).sum())
    shape = prior.shape()
    constant = -float(base.scale.double().log().expand(shape).sum()) - shape.numel() * math.log(2 * math.pi) / 2

    def function(value: torch.Tensor) -> float:
        relative = (value - base.loc.to(value)) / base.scale.to(value)
        return constant - float(row_norms(relative.reshape(1, -1))) / 2

    return function
