"""The same network under another prior."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from wiu_pyro.errors import ModelError
from wiu_pyro.nn.network import BayesianNetwork
from wiu_pyro.nn.priors import Prior

__all__ = ["under_prior"]


def under_prior(
    model: BayesianNetwork, prior: Prior, *, weights: Mapping[str, torch.Tensor] | None = None
) -> BayesianNetwork:
    """Return a model of the same network, weights and likelihood under another prior.

    Parameters
    ----------
    model : BayesianNetwork
        Left unchanged.
    prior : Prior
        For every weight that has a prior; those without stay point estimates.
    weights : mapping of site to Tensor, optional
        What the network is to hold, such as the point estimate of a fit; as the model has them when None.

    Returns
    -------
    BayesianNetwork

    Raises
    ------
    ModelError
        If a weight has another shape, or its name is none of the network's.

    Examples
    --------
    >>> from wiu_pyro.nn import Normal
    >>> model = BayesianNetwork(nn.Linear(4, 3))
    >>> under_prior(model, Normal(0.5)).prior_distributions()["weight"].stddev[0, 0].item()
    0.5
    """
    net = copy.deepcopy(model.net)
    _put(net, weights or {})
    others = [name for name, _ in net.named_parameters()]
    for name in model.site_priors:
        path, _, parameter = name.rpartition(".")
        module = net.get_submodule(path)
        value = getattr(module, parameter)
        delattr(module, parameter)
        module.register_parameter(parameter, nn.Parameter(value))
    rules: Prior | dict[str, Prior | None] = prior
    if others:
        rules = {**dict.fromkeys(model.site_priors, prior), **dict.fromkeys(others)}
    options = {} if model.likelihood != "normal" else {"noise_scale": model.noise_scale}
    return BayesianNetwork(net, rules, likelihood=model.likelihood, num_data=model.num_data, **options)


def _put(net: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    held = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for name, value in weights.items():
        if name not in held or held[name].shape != value.shape:
            wanted = tuple(held[name].shape) if name in held else "none of that name"
            raise ModelError(
                f"The network's '{name}' has shape {wanted}, but the weight given has {tuple(value.shape)}. Give "
                "weights of a network of the same layers."
            )
        with torch.no_grad():
            held[name].copy_(value)
