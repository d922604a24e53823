"""The networks that are timed, and one training step of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn

import wiu_pyro as wiu

__all__ = ["NETWORKS", "networks", "step_cases"]

NETWORKS = ("mnist_mlp", "mnist_lenet")
Cases = dict[str, Callable[[], object]]


def networks(name: str) -> tuple[nn.Module, wiu.nn.BayesianNetwork]:
    """Return a plain network and the Bayesian one of a shipped script."""
    path = Path(__file__).parents[2] / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = script.build(10, 1, (28, 28))
    model.num_data = 60_000
    plain = script.MLP(784, 10) if name == "mnist_mlp" else script.LeNet(10, 1, (28, 28))
    return plain, model


def _images(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 1, 28, 28, generator=generator), torch.randint(10, (num,), generator=generator)


def step_cases(name: str) -> Cases:
    """Return one training step, batch 128: plain Adam, the toolkit's guides, Pyro's through SVI."""
    plain, model = networks(name)
    batch = _images(128)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)

    def plain_step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(plain(batch[0]), batch[1]).backward()
        optimiser.step()

    cases: Cases = {"plain Adam": plain_step}
    for guide in (wiu.guides.AutoKFACLaplace(model), wiu.guides.AutoMeanField(model)):
        cases[f"{type(guide).__name__}, wiu.fit's step"] = _own_step(guide, batch)
    for guide, elbo in (
        (wiu.guides.AutoMeanField(model), TraceMeanField_ELBO()),
        (AutoNormal(model), TraceMeanField_ELBO()),
        (AutoDelta(model), Trace_ELBO()),
    ):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
        cases[f"{type(guide).__name__}, SVI"] = lambda svi=svi: svi.step(*batch)
    return cases


def _own_step(guide: wiu.guides.AutoMeanField, batch: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    guide.setup(batch)
    optimiser = torch.optim.Adam(guide.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with pyro.validation_enabled(False):
            loss = guide.negative_elbo(*batch)
            loss.item()
            loss.backward()
        optimiser.step()

    return step


def _sequential(plain: nn.Module) -> nn.Sequential:
    """Return the network as a chain of modules with its weights, the form BackPACK needs."""
    linears = [layer for layer in plain.children() if isinstance(layer, nn.Linear)]
    chain: list[nn.Module] = []
    for conv in (layer for layer in plain.children() if isinstance(layer, nn.Conv2d)):
        chain += [conv, nn.ReLU(), nn.MaxPool2d(2)]
    chain.append(nn.Flatten())
    for linear in linears:
        chain += [linear, nn.ReLU()]
    return nn.Sequential(*chain[:-1])
