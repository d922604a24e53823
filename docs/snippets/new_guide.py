"""A posterior in one file: one relative uncertainty per site, sd = ratio · prior sd, learned by VI."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from wiu_pyro.guides.network_guide import NetworkGuide


class AutoSiteScale(NetworkGuide):
    """Independent Normals whose sds are the prior's, times one learned ratio for each site."""

    cli_name = "site-scale"  # the name `wiu run --guides` knows it by
    structure_name = "site-scale"  # what the table of layers calls it
    factorised = True  # so moments and KL come in closed form from `_loc_scale`

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        self.log_ratio = nn.Parameter(torch.full((len(self.sites()),), -2.0))

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = torch.tensor([shape.numel() for _, _, shape in self.sites()])
        return self.loc, self.flat_prior().scale * self.log_ratio.exp().repeat_interleave(sizes)

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Normal over the flat vector of all weights."""
        return dist.Normal(*self._loc_scale()).to_event(1)
