"""The same network under another prior."""

from __future__ import annotations

import copy

from torch import nn

from wiu_pyro.nn.network import BayesianNetwork
from wiu_pyro.nn.priors import Prior

__all__ = ["under_prior"]


def under_prior(model: BayesianNetwork, prior: Prior) -> BayesianNetwork:
    """Return a model of the same network, weights and likelihood under another prior.

    Parameters
    ----------
    model : BayesianNetwork
        Left unchanged.
    prior : Prior
        For every weight that has a prior; those without stay point estimates.

    Returns
    -------
    BayesianNetwork

    Examples
    --------
    >>> from wiu_pyro.nn import Normal
    >>> model = BayesianNetwork(nn.Linear(4, 3))
    >>> under_prior(model, Normal(0.5)).prior_distributions()["weight"].stddev[0, 0].item()
    0.5
    """
    net = copy.deepcopy(model.net)
    others = [name for name, _ in net.named_parameters()]
    for name in model.site_priors:
        path, _, parameter = name.rpartition(".")
        module = net.get_submodule(path)
        value = getattr(module, parameter)
        delattr(module, parameter)
        module.register_parameter(parameter, nn.Parameter(value))
    rules: dict[str, Prior | None] = dict.fromkeys(model.site_priors, prior)
    rules |= dict.fromkeys(others)
    options = {} if model.likelihood != "normal" else {"noise_scale": model.noise_scale}
    return BayesianNetwork(net, rules, likelihood=model.likelihood, num_data=model.num_data, **options)
