"""One training step of mean-field inference as other packages do it; those that are not installed are left out."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable

import torch
from torch import nn

__all__ = ["peer_steps"]

Step = Callable[[], object]
NUM_DATA = 60_000


def peer_steps(plain: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Step]:
    """Return a step of each package: its layers in place of the network's, KL and Adam; its optimiser for ivon-opt.

    Parameters
    ----------
    plain : Module
        The network, of Linear and Conv2d layers; it is copied.
    batch : tuple of Tensor

    Returns
    -------
    dict of str to callable
    """
    makers = {
        "bayesian-torch": ("bayesian_torch", lambda: _bayesian_torch(plain, batch, kind="Reparameterization")),
        "bayesian-torch, flipout": ("bayesian_torch", lambda: _bayesian_torch(plain, batch, kind="Flipout")),
        "torchbnn": ("torchbnn", lambda: _torchbnn(plain, batch)),
        "ivon-opt": ("ivon", lambda: _ivon(plain, batch)),
    }
    return {name: make() for name, (module, make) in makers.items() if importlib.util.find_spec(module)}


def _step(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], divergence: Callable[[], torch.Tensor]) -> Step:
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(batch[0]), batch[1]) + divergence() / NUM_DATA
        loss.item()
        loss.backward()
        optimiser.step()

    return step


def _bayesian_torch(plain: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], *, kind: str) -> Step:
    from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss

    net = copy.deepcopy(plain)
    settings = {
        "prior_mu": 0.0,
        "prior_sigma": 0.1,
        "posterior_mu_init": 0.0,
        "posterior_rho_init": -4.0,
        "type": kind,
        "moped_enable": False,
        "moped_delta": 0.5,
    }
    dnn_to_bnn(net, settings)
    return _step(net, batch, lambda: get_kl_loss(net))


def _torchbnn(plain: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Step:
    import torchbnn

    net = copy.deepcopy(plain)
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.Linear):
            layer = torchbnn.BayesLinear(0, 0.1, module.in_features, module.out_features)
        elif isinstance(module, nn.Conv2d):
            sizes = (module.in_channels, module.out_channels, module.kernel_size)
            layer = torchbnn.BayesConv2d(0, 0.1, *sizes, stride=module.stride, padding=module.padding)
        else:
            continue
        net.set_submodule(path, layer)
    divergence = torchbnn.BKLLoss(reduction="sum")
    return _step(net, batch, lambda: divergence(net))


def _ivon(plain: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Step:
    import ivon

    net = copy.deepcopy(plain)
    optimiser = ivon.IVON(net.parameters(), lr=0.1, ess=NUM_DATA)

    def step() -> None:
        optimiser.zero_grad()
        with optimiser.sampled_params(train=True):
            loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
            loss.item()
            loss.backward()
        optimiser.step()

    return step
