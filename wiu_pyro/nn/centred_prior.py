"""A prior centred at weights that are there already, from training elsewhere.

Such a prior has seen data. Where these are the data of the fit, they count twice, and what comes of it is no posterior
under a prior that was fixed before: the prior's text says so in every file and table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from typing_extensions import override

from wiu_pyro.errors import PriorError
from wiu_pyro.nn.describe import base_distribution
from wiu_pyro.nn.priors import FanInNormal, Prior

__all__ = ["Centred"]


@dataclass(frozen=True)
class Centred(Prior):
    """Another prior, moved so that its mean is the network's own weight.

    Parameters
    ----------
    prior : Prior
        Normal, FanInNormal or Laplace: gives the scales.

    Raises
    ------
    PriorError
        If the prior has no location of its own.

    Examples
    --------
    A prior around a trained network, or around an earlier fit:

    >>> from wiu_pyro.nn import BayesianNetwork, Normal
    >>> net = nn.Linear(4, 3)
    >>> model = BayesianNetwork(net, Centred(Normal(0.1)))
    >>> bool((model.prior_distributions()["weight"].mean == net.weight).all())
    True

    ``wiu.nn.under_prior(fit.model, Centred(Normal(0.1)), weights=fit.point_estimate)``
    """

    prior: Prior = field(default_factory=FanInNormal)

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        base: Any = base_distribution(self.prior.distribution(parameter, name=name, module=module))
        if type(base) not in (dist.Normal, dist.Laplace):
            raise PriorError(
                f"A prior that can be moved is needed, a Normal or a Laplace, but '{name}' has a "
                f"{type(base).__name__} ({self.prior.describe()}). Use Centred(Normal(...)) or Centred(FanInNormal())."
            )
        loc = parameter.detach().clone()
        return type(base)(loc, base.scale.expand(loc.shape)).to_event(loc.dim())

    @override
    def describe(self) -> str:
        return f"{self.prior.describe()}, centred at the network's own weights"
