"""Small networks with posteriors, fitted in well under a second each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import wiu_pyro as wiu

SHAPES = {"fc1": (5, 4), "out": (3, 5)}


def make_data(num: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num, 4, generator=generator)
    return x, (x[:, :3] + 0.3 * torch.randn(num, 3, generator=generator)).argmax(1)


def make_model(**options: Any) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("fc1", nn.Linear(4, 5))
    net.add_module("act", nn.Tanh())
    net.add_module("out", nn.Linear(5, 3))
    return wiu.nn.BayesianNetwork(net, num_data=30, **options)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    return make_data()


@pytest.fixture(scope="session")
def fits() -> dict[str, Any]:
    """One fit of each kind, by its short name."""
    found = {}
    for name in ("AutoMeanField", "AutoDiagonalLaplace", "AutoKFACLaplace", "AutoFullLaplace"):
        model = make_model()
        found[name] = wiu.fit(model, getattr(wiu.guides, name)(model), make_data(), epochs=10, seed=3, progress=False)
    return found
