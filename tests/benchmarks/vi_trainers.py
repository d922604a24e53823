"""Mean-field VI as each package does it: one start, one prior, steps by batch, means and sds of one network's weights.

bayesian-torch averages its KL over each tensor; here it is summed, for otherwise its temperature is another.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

import wiu_pyro as wiu
from tests.benchmarks.vi_quality import PRIOR as SCALES

__all__ = ["OF_ANY_PRIOR", "START_SD", "TRAINERS", "Pair", "Posterior", "Task", "Trainer", "divergence"]

Pair = tuple[torch.Tensor, torch.Tensor]
Posterior = dict[str, Pair]  # mean and sd of each parameter
START_SD, KL_DRAWS = 0.01, 10


@dataclass(frozen=True)
class Task:
    """What all are asked.

    Attributes
    ----------
    plain : Module
        The trained network to start from.
    num_data : int
    prior_sd : float or None
        Of each weight; None is the mixture of scales.
    """

    plain: nn.Module
    num_data: int
    prior_sd: float | None = 0.1

    def model(self) -> wiu.nn.BayesianNetwork:
        """Return a copy of the network as a Pyro model."""
        prior = SCALES if self.prior_sd is None else wiu.nn.Normal(self.prior_sd)
        return wiu.nn.BayesianNetwork(copy.deepcopy(self.plain), prior=prior, num_data=self.num_data)


@dataclass(frozen=True)
class Trainer:
    """A package's way to train.

    Attributes
    ----------
    step : callable
        Takes a batch and the learning rate as a fraction of the full one.
    posterior : callable
        Returns mean and sd of each parameter, by its name in the plain network.
    """

    step: Callable[[Pair, float], None]
    posterior: Callable[[], Posterior]


def _by_loss(
    parameters: list[torch.Tensor],
    loss: Callable[[Pair], torch.Tensor],
    posterior: Callable[[], Posterior],
    *,
    rate: float = 1e-3,
) -> Trainer:
    """Train by Adam on a loss."""
    optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)

    def step(batch: Pair, fraction: float) -> None:
        optimiser.param_groups[0]["lr"] = rate * fraction
        optimiser.zero_grad()
        loss(batch).backward()
        optimiser.step()

    return Trainer(step, posterior)


def toolkit(task: Task) -> Trainer:
    """Return AutoMeanField with its default estimator."""
    guide = wiu.guides.AutoMeanField(task.model(), scale_indicators=task.prior_sd is None)
    guide(torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long))
    guide.log_scale.data.fill_(math.log(START_SD))
    posterior = lambda: {  # noqa: E731
        name: (guide.loc.detach()[place].view(shape), guide.log_scale.detach().exp()[place].view(shape))
        for name, place, shape in guide.sites()
    }
    return _by_loss(list(guide.parameters()), lambda batch: guide.negative_elbo(*batch), posterior)


def auto_normal(task: Task) -> Trainer:
    """Return Pyro's AutoNormal through its SVI."""
    pyro.clear_param_store()
    model = task.model()
    guide = AutoNormal(model, init_loc_fn=wiu.guides.init_to_network(model), init_scale=START_SD)
    optimiser = pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 1e-3})
    svi = SVI(model, guide, optimiser, TraceMeanField_ELBO())

    def step(batch: Pair, fraction: float) -> None:
        for one in optimiser.optim_objs.values():
            one.param_groups[0]["lr"] = 1e-3 * fraction
        svi.step(*batch)

    guide(torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long))
    posterior = lambda: {name: guide._get_loc_and_scale(name) for name, _ in task.plain.named_parameters()}  # noqa: E731
    return Trainer(step, posterior)


def bayesian_torch(task: Task) -> Trainer:
    """Return bayesian-torch's layers, their KL summed."""
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn

    net = copy.deepcopy(task.plain)
    settings = {"prior_mu": 0.0, "prior_sigma": task.prior_sd, "posterior_mu_init": 0.0, "type": "Reparameterization"}
    dnn_to_bnn(net, {**settings, "posterior_rho_init": -4.0, "moped_enable": False, "moped_delta": 0.5})
    own, places = dict(net.named_parameters()), {}
    for name in dict(task.plain.named_parameters()):
        layer, _, part = name.rpartition(".")
        part = "kernel" if f"{layer}.mu_kernel" in own and part == "weight" else part
        places[name] = own[f"{layer}.mu_{part}"], own[f"{layer}.rho_{part}"]
    _start(task.plain, places, math.log(math.expm1(START_SD)))
    posterior = lambda: {name: (mean, nn.functional.softplus(rho)) for name, (mean, rho) in places.items()}  # noqa: E731
    return _by_loss(list(net.parameters()), _loss(net, posterior, task), posterior)


def torchbnn(task: Task) -> Trainer:
    """Return torchbnn's layers."""
    import torchbnn as bnn

    net = copy.deepcopy(task.plain)
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.Linear):
            net.set_submodule(path, bnn.BayesLinear(0, task.prior_sd, module.in_features, module.out_features))
        elif isinstance(module, nn.Conv2d):
            sizes = (module.in_channels, module.out_channels, module.kernel_size)
            moves = {"stride": module.stride, "padding": module.padding}
            net.set_submodule(path, bnn.BayesConv2d(0, task.prior_sd, *sizes, **moves))
    own = dict(net.named_parameters())
    places = {name: (own[f"{name}_mu"], own[f"{name}_log_sigma"]) for name in dict(task.plain.named_parameters())}
    _start(task.plain, places, math.log(START_SD))
    posterior = lambda: {name: (mean, log_sd.exp()) for name, (mean, log_sd) in places.items()}  # noqa: E731
    return _by_loss(list(net.parameters()), _loss(net, posterior, task), posterior)


def ivon(task: Task) -> Trainer:
    """Return ivon-opt's optimiser, its weight decay being the prior, its Hessian starting where the sd is the same."""
    from ivon import IVON

    net = copy.deepcopy(task.plain)
    decay = 1 / (task.num_data * task.prior_sd**2)
    start = 1 / (task.num_data * START_SD**2) - decay
    optimiser = IVON(net.parameters(), lr=0.1, ess=task.num_data, weight_decay=decay, hess_init=start)

    def step(batch: Pair, fraction: float) -> None:
        optimiser.param_groups[0]["lr"] = 0.1 * fraction
        optimiser.zero_grad()
        with optimiser.sampled_params(train=True):
            nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
        optimiser.step()

    def posterior() -> Posterior:
        group = optimiser.param_groups[0]
        sd = (group["ess"] * (group["hess"] + group["weight_decay"])).rsqrt()
        named = dict(net.named_parameters())
        parts = sd.split([value.numel() for value in named.values()])
        return {name: (value, part.view_as(value)) for (name, value), part in zip(named.items(), parts, strict=True)}

    return Trainer(step, posterior)


def _start(plain: nn.Module, places: Posterior, spread: float) -> None:
    with torch.no_grad():
        for name, value in plain.named_parameters():
            places[name][0].copy_(value)
            places[name][1].fill_(spread)


def _loss(net: nn.Module, posterior: Callable[[], Posterior], task: Task) -> Callable[[Pair], torch.Tensor]:
    def loss(batch: Pair) -> torch.Tensor:
        output = net(batch[0])
        output = output[0] if isinstance(output, tuple) else output
        return task.num_data * nn.functional.cross_entropy(output, batch[1]) + divergence(posterior(), task.prior_sd)

    return loss


_MAKERS: dict[str, tuple[str, Callable[[Task], Trainer]]] = {
    "wiu_pyro AutoMeanField": ("wiu_pyro", toolkit),
    "Pyro AutoNormal": ("pyro", auto_normal),
    "bayesian-torch": ("bayesian_torch", bayesian_torch),
    "torchbnn": ("torchbnn", torchbnn),
    "ivon-opt": ("ivon", ivon),
}
OF_ANY_PRIOR = tuple(_MAKERS)[:2]
TRAINERS = {name: make for name, (package, make) in _MAKERS.items() if importlib.util.find_spec(package)}


def divergence(posterior: Posterior, prior_sd: float | None) -> torch.Tensor:
    """Return KL(posterior ‖ prior) over all weights, in nats; from the mixture of scales by draws."""
    if prior_sd is None:
        return torch.stack([_by_draws(name, *pair) for name, pair in posterior.items()]).sum()
    terms = (
        0.5 * ((sd / prior_sd) ** 2 + (mean / prior_sd) ** 2 - 1) - (sd / prior_sd).log()
        for mean, sd in posterior.values()
    )
    return torch.stack([term.sum() for term in terms]).sum()


def _by_draws(name: str, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    own = torch.distributions.Normal(mean, sd)
    rule = next(rule for pattern, rule in SCALES.items() if name.endswith(pattern.lstrip("*")))
    prior = rule.distribution(mean, name=name, module=None)
    draws = own.sample((KL_DRAWS,))
    return (own.log_prob(draws).sum() - prior.log_prob(draws).sum()) / KL_DRAWS
