"""What a prior is: what stands inside a distribution, whether that is a Normal, and its formula."""

from __future__ import annotations

import pyro.distributions as dist
from torch import distributions as td

__all__ = ["base_distribution", "describe_prior", "is_normal"]


def base_distribution(distribution: td.Distribution) -> td.Distribution:
    """Return what stands inside ``to_event`` and ``expand``; a transformed distribution is not the one inside it."""
    while hasattr(distribution, "base_dist") and not isinstance(distribution, td.TransformedDistribution):
        distribution = distribution.base_dist
    return distribution


def is_normal(distribution: td.Distribution) -> bool:
    """Return whether a Normal stands inside ``to_event`` and ``expand``, torch's or Pyro's and no subclass of them.

    Parameters
    ----------
    distribution : Distribution

    Returns
    -------
    bool

    Examples
    --------
    >>> is_normal(dist.Normal(0.0, 1.0).expand([3]).to_event(1)), is_normal(dist.LogNormal(0.0, 1.0))
    (True, False)
    """
    return type(base_distribution(distribution)) in (dist.Normal, td.Normal)


def describe_prior(distribution: dist.Distribution) -> str:
    """Return a prior as a short formula, for tables: ``"Normal(0, 0.1)"`` where constant."""
    distribution = base_distribution(distribution)
    kind = type(distribution).__name__
    if getattr(distribution, "improper", False):
        return f"{kind} (improper: without mean, sd or draws)"
    if isinstance(distribution, dist.Normal | dist.Laplace):
        loc, scale = distribution.loc, distribution.scale
        if (loc == loc.flatten()[0]).all() and (scale == scale.flatten()[0]).all():
            return f"{kind}({loc.flatten()[0].item():.4g}, {scale.flatten()[0].item():.4g})"
        return f"{kind}(loc and scale differ between weights)"
    if isinstance(distribution, dist.MixtureSameFamily):
        return _describe_mixture(distribution)
    return kind


def _describe_mixture(mixture: dist.MixtureSameFamily) -> str:
    parts, probs = mixture.component_distribution, mixture.mixture_distribution.probs.flatten(0, -2)
    if not isinstance(parts, dist.Normal) or not (probs == probs[0]).all():
        return f"Mixture of {type(parts).__name__}"
    loc, scale = parts.loc.flatten(0, -2), parts.scale.flatten(0, -2)
    if not ((loc == loc[0]).all() and (scale == scale[0]).all()):
        return "Mixture of Normal"
    numbers = zip(probs[0].tolist(), loc[0].tolist(), scale[0].tolist(), strict=True)
    return " + ".join(f"{prob:.4g} Normal({mean:.4g}, {sd:.4g})" for prob, mean, sd in numbers)
