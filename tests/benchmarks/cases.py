"""The networks that are timed, and one training step of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoNormal
from torch import nn

import wiu_pyro as wiu
from tests.benchmarks.bars import Bar
from tests.benchmarks.step_peers import peer_steps

__all__ = ["NETWORKS", "STEP_BARS", "networks", "sequential", "step_cases"]

NETWORKS = ("mnist_mlp", "mnist_lenet")
ESTIMATORS = ("local_antithetic", "flipout", "reparam", "local_positions")  # beside the default
PLAIN_STEP = "plain Adam"
OWN_STEP = "AutoMeanField, wiu.fit's"
SVI_STEP = "AutoMeanField, SVI, local"
IVON_STEP = "AutoIVON, wiu.fit's"
STEP_BARS = (
    Bar(OWN_STEP, (PLAIN_STEP,), {"mnist_mlp": 2.5, "mnist_lenet": 1.5}),
    Bar(SVI_STEP, (PLAIN_STEP,), {"mnist_mlp": 4.5, "mnist_lenet": 2.0}),
    Bar(IVON_STEP, ("ivon-opt",), {"mnist_mlp": 1.1, "mnist_lenet": 1.1}),
)
Batch = tuple[torch.Tensor, torch.Tensor]
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
    """Return one training step, batch 128: plain Adam, the toolkit's guides, Pyro's through SVI, other packages'."""
    pyro.clear_param_store()  # Pyro's parameters go by name: another network's would be taken
    plain, model = networks(name)
    batch = _images(128)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)

    def plain_step() -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(plain(batch[0]), batch[1]).backward()
        optimiser.step()

    guides = wiu.guides
    cases: Cases = {PLAIN_STEP: plain_step, OWN_STEP: _own_step(guides.AutoMeanField(model), batch)}
    for estimator in ESTIMATORS:
        case = f"AutoMeanField, wiu.fit's, {estimator}"
        cases[case] = _own_step(guides.AutoMeanField(model, estimator=estimator), batch)
    cases[IVON_STEP] = _own_step(guides.AutoIVON(model), batch)
    cases["AutoKFACLaplace, wiu.fit's"] = _own_step(guides.AutoKFACLaplace(model), batch)
    local = guides.local_reparameterization
    cases[SVI_STEP] = _svi_step(model, guides.AutoMeanField(model), batch, handler=local())
    cases["AutoMeanField, SVI"] = _svi_step(model, guides.AutoMeanField(model), batch)
    cases["AutoNormal, SVI, local"] = _svi_step(model, AutoNormal(model), batch, handler=local())
    cases["AutoNormal, SVI"] = _svi_step(model, AutoNormal(model), batch)
    cases["AutoDelta, SVI"] = _svi_step(model, AutoDelta(model), batch, elbo=Trace_ELBO)
    return {**cases, **peer_steps(plain, batch)}


def _svi_step(
    model: wiu.nn.BayesianNetwork,
    guide: AutoGuide,
    batch: Batch,
    *,
    handler: Any = None,
    elbo: Any = TraceMeanField_ELBO,
) -> Callable[[], None]:
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo())
    around = nullcontext() if handler is None else handler

    def step() -> None:
        with around:
            svi.step(*batch)

    return step


def _own_step(guide: Any, batch: Batch) -> Callable[[], None]:
    guide.setup(batch)
    optimiser = guide.make_optimiser([one for one in guide.parameters() if one.requires_grad], 1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with pyro.validation_enabled(False):
            loss = guide.negative_elbo(*batch)
            loss.item()
            loss.backward()
        optimiser.step()

    return step


def sequential(plain: nn.Module) -> nn.Sequential:
    """Return the network as a chain of modules with its weights, the form BackPACK needs."""
    linears = [layer for layer in plain.children() if isinstance(layer, nn.Linear)]
    chain: list[nn.Module] = []
    for conv in (layer for layer in plain.children() if isinstance(layer, nn.Conv2d)):
        chain += [conv, nn.ReLU(), nn.MaxPool2d(2)]
    chain.append(nn.Flatten())
    for linear in linears:
        chain += [linear, nn.ReLU()]
    return nn.Sequential(*chain[:-1])
