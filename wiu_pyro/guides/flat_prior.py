"""The priors of all weights as vectors, in the order of a guide's flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from pyro import distributions as dist

from wiu_pyro.nn import base_distribution, is_normal

__all__ = ["HALF_LOG_TWO_PI", "FlatPrior", "point_energy", "read_priors"]

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class FlatPrior:
    """The priors of a flat vector of weights, on the unconstrained scale.

    Attributes
    ----------
    loc, scale : Tensor, shape (latent_dim,)
        Mean and sd where the prior is Normal, else 0 and 1.
    normal : Tensor of bool, shape (latent_dim,)
        Where the prior is Normal.
    num_normal : int
    log_scale_sum : float
        Σ log sd over the Normal ones.
    """

    loc: torch.Tensor
    scale: torch.Tensor
    normal: torch.Tensor
    num_normal: int
    log_scale_sum: float

    @property
    def all_normal(self) -> bool:
        """Whether every prior is Normal."""
        return self.num_normal == len(self.loc)

    @cached_property
    def precision(self) -> torch.Tensor:
        """1 / sd² of each."""
        return self.scale.square().reciprocal()

    @cached_property
    def centred(self) -> bool:
        """Whether every mean is zero."""
        return not self.loc.any()


def read_priors(
    sites: Iterable[tuple[str, dist.Distribution, torch.Size]], multipliers: Mapping[str, float], *, like: torch.Tensor
) -> FlatPrior:
    """Return the priors of sites as flat vectors.

    Parameters
    ----------
    sites : iterable of (str, Distribution, Size)
        Name, prior and unconstrained shape of each, in the order of the flat vector.
    multipliers : mapping of site to float
        Of the sds of Normal priors, where they are not the model's own.
    like : Tensor
        Gives type and device.

    Returns
    -------
    FlatPrior
    """
    locs, scales, normal = [], [], []
    for name, prior, shape in sites:
        base = base_distribution(prior)
        zeros = like.new_zeros(shape)
        known = is_normal(prior)
        locs.append(base.loc.to(zeros) + zeros if known else zeros)
        scales.append(base.scale.to(zeros) * multipliers.get(name, 1.0) + zeros if known else zeros + 1)
        normal.append(torch.full(zeros.shape, known, device=like.device))
    loc, scale, mask = (torch.cat([one.reshape(-1) for one in part]) for part in (locs, scales, normal))
    log_scale_sum = scale[mask].double().log().sum().item()
    return FlatPrior(loc, scale, mask, int(mask.sum()), log_scale_sum)


def point_energy(prior: dist.Distribution, value: torch.Tensor) -> torch.Tensor:
    """Return −log prior of a site at a point estimate, in nats; of a Normal prior without its constant.

    Parameters
    ----------
    prior : Distribution
    value : Tensor
        On the site's own scale, in its shape.

    Returns
    -------
    Tensor
        A scalar on the graph of `value`.
    """
    if not is_normal(prior):
        return -prior.log_prob(value).sum()
    base = base_distribution(prior)
    return 0.5 * ((value - base.loc) / base.scale).square().sum()
