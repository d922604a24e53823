"""What is timed: one training step, and one pass of curvature over 2,000 images, of two networks."""

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

__all__ = ["NETWORKS", "curvature_cases", "networks", "step_cases"]

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


def curvature_cases(name: str, *, num_images: int = 2_000) -> Cases:
    """Return one pass of each curvature, and one plain forward and backward pass, over the same batches."""
    plain, model = networks(name)
    images, labels = _images(num_images)
    batches = list(zip(images.split(250), labels.split(250), strict=True))
    loss = nn.CrossEntropyLoss(reduction="sum")

    def plain_pass() -> None:
        for x, y in batches:
            plain.zero_grad()
            loss(plain(x), y).backward()

    data = wiu.nn.as_batches((images, labels), batch_size=250)
    model.eval()
    cases: Cases = {"forward and backward": plain_pass}
    for kind in ("ggn", "fisher_mc", "fisher_empirical"):
        for guide in (wiu.guides.AutoKFACLaplace, wiu.guides.AutoDiagonalLaplace):
            laplace = guide(model, curvature=kind)
            cases[f"{guide.__name__}, {kind}"] = lambda laplace=laplace: laplace.laplace_approximation(data)
    return cases | _peers(plain, loss, batches)


def _peers(plain: nn.Module, loss: nn.Module, batches: list[tuple[torch.Tensor, ...]]) -> Cases:
    from backpack import backpack, extend
    from backpack.extensions import KFLR, DiagGGNExact
    from curvlinops import KFACLinearOperator

    parameters = list(plain.parameters())
    extended, extended_loss = extend(_sequential(plain)), extend(nn.CrossEntropyLoss(reduction="sum"))

    def curvlinops_kfac() -> None:
        operator = KFACLinearOperator(plain, loss, parameters, batches, fisher_type="type-2", check_deterministic=False)
        operator.compute_kronecker_factors()

    def backpack_pass(extension: object) -> None:
        for x, y in batches:
            extended.zero_grad()
            with backpack(extension):
                extended_loss(extended(x), y).backward()

    return {
        "curvlinops KFAC, exact GGN": curvlinops_kfac,
        "BackPACK KFLR, exact GGN": lambda: backpack_pass(KFLR()),
        "BackPACK diagonal, exact GGN": lambda: backpack_pass(DiagGGNExact()),
    }


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
