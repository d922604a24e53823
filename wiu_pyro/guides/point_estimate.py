"""A point estimate: the most probable weights under the model's prior (MAP), as a guide.

It is no posterior: nothing is known of how far the weights may move. It is what the members of a deep ensemble are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta
from torch import nn

from wiu_pyro.errors import PriorError
from wiu_pyro.guides.closed_form import ClosedForm
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.nn import ModelStructure

__all__ = ["AutoPointEstimate", "PointTrained", "is_point_estimate"]


class PointTrained(NetworkGuide):
    """Base of guides trained as a point: by −log joint at `loc`, a parameter started at the network's own weights.

    Parameters
    ----------
    model : callable
        A Pyro model.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the prior against the likelihood; 1 is Bayes.
    """

    objective: ClassVar[str] = "-log joint density"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return −log joint at the point from one batch, in nats; the temperature multiplies the prior."""
        if not self.fixed_priors:
            raise PriorError(
                f"{type(self).__name__} needs priors that depend on nothing else, but the prior of "
                f"'{self.structure.dependent_priors[0]}' depends on another site or on a learned parameter. "
                "Fix the prior."
            )
        log_likelihood = self.log_likelihood(self.unpack(self.loc), batch)
        return -log_likelihood - kl_weight * self.temperature * self.log_prior(self.loc)

    def loss_offset(self) -> float:
        """Return the normalising constant of the Normal priors, which shifts −log joint and depends on units."""
        prior = self.flat_prior()
        return self.temperature * (prior.log_scale_sum + prior.num_normal * HALF_LOG_TWO_PI)


class AutoPointEstimate(PointTrained):
    """The weights at the mode of the joint density, started at the network's own.

    Trained by −log joint, as the point estimate of a Laplace guide is; `wiu_pyro.to_inference_data` writes NaN where
    other posteriors have a standard deviation.

    Parameters
    ----------
    model : callable
        A Pyro model.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the prior against the likelihood; 1 is Bayes.

    Raises
    ------
    GuideError
        If the temperature is not positive.

    Examples
    --------
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=8)
    >>> guide = AutoPointEstimate(model)
    >>> guide(torch.ones(8, 4), torch.zeros(8))["bias"].shape
    torch.Size([3])
    """

    structure_name = "point"
    no_density: ClassVar[str] = "a point estimate has no density"

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Delta at the flat, unconstrained vector of all weights."""
        return dist.Delta(self.loc, event_dim=1)

    def moments(self, structure: ModelStructure) -> ClosedForm:
        """Return the weights as means with an sd of 0, the mark of weights at a point estimate; no KL."""
        point = self.point_estimate()
        mean = {site: point[site] for site in structure.parameter_sites}
        held = {site: torch.zeros_like(value) for site, value in mean.items()}
        return ClosedForm(
            mean=mean,
            sd=held,
            sd_conditional=held,
            layer_kl={layer.name: math.nan for layer in structure.layers},
            kl_total=math.nan,
            layer_structure={layer.name: "point" for layer in structure.layers},
            factorised=True,
        )


def is_point_estimate(guide: Any) -> bool:
    """Return whether a guide is a point in the space of weights: the toolkit's, or Pyro's `AutoDelta`."""
    return isinstance(guide, AutoPointEstimate | AutoDelta)
