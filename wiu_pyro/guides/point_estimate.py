"""A point estimate: the most probable weights under the model's prior (MAP), as a guide.

It is no posterior: nothing is known of how far the weights may move. It is what the members of a deep ensemble are.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta

from wiu_pyro.guides.closed_form import ClosedForm
from wiu_pyro.guides.point_trained import PointTrained
from wiu_pyro.nn import ModelStructure

__all__ = ["AutoPointEstimate", "is_point_estimate"]


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
    >>> model = BayesianNetwork(torch.nn.Linear(4, 3), num_data=8)
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
