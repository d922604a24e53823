"""Where guides start: at the network's own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from wiu_pyro.nn import weight_module

__all__ = ["init_to_network", "is_real"]


def init_to_network(model: Callable[..., Any]) -> Callable[[dict[str, Any]], torch.Tensor]:
    """Return a Pyro ``init_loc_fn`` that starts each site at the network's own weight.

    A site without a weight in the network (a `PyroSample` put in its place) starts at a draw from
    Normal(prior mean, min(prior sd, fan_in^-1/2)): zeros, Pyro's default for a Normal prior, are a saddle point of a
    network; a site that is no weight, or whose prior is bounded, starts at its prior's median.

    Parameters
    ----------
    model : callable
        A Pyro model. For Pyro's own guides: ``AutoNormal(model, init_loc_fn=init_to_network(model))``.

    Returns
    -------
    callable
        Maps a Pyro site to its initial value.
    """
    root = weight_module(model)

    def init(site: dict[str, Any]) -> torch.Tensor:
        own = {} if root is None else {**dict(root.named_parameters()), **dict(root.named_buffers())}
        fn = site["fn"]
        if site["name"] in own and own[site["name"]].shape == fn.shape():
            return own[site["name"]].detach().clone()
        if not fn.shape() or not is_real(fn.support):
            return torch.stack([fn.sample() for _ in range(15)]).median(0).values
        fan_in = torch.Size(fn.shape()[1:]).numel()
        return fn.mean + fn.stddev.clamp(max=fan_in**-0.5) * torch.randn_like(fn.mean)

    return init


def is_real(support: Any) -> bool:
    """Return whether a support is the whole real line, event dims aside."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is torch.distributions.constraints.real
