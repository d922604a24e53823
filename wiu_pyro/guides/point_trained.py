"""What guides trained as a point share: −log joint, the objective of a point estimate under the model's prior (MAP)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.network_guide import NetworkGuide

__all__ = ["PointTrained"]


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

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return −log joint at the point from one batch, in nats; the temperature multiplies the prior.

        Parameters
        ----------
        *batch : Tensor
            What the model is called with.
        kl_weight : float
            Multiplies the prior, beside the temperature.

        Returns
        -------
        Tensor
            A scalar on the graph of `loc`.

        Raises
        ------
        PriorError
            If a prior depends on another site.
        """
        self.refuse_dependent_priors()
        log_likelihood = self.log_likelihood(self.unpack(self.loc), batch)
        return -log_likelihood - kl_weight * self.temperature * self.log_prior(self.loc)

    def loss_offset(self) -> float:
        """Return the normalising constant of the Normal priors, which shifts −log joint and depends on units."""
        prior = self.flat_prior()
        return self.temperature * (prior.log_scale_sum + prior.num_normal * HALF_LOG_TWO_PI)
