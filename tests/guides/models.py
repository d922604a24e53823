"""Pyro models other than `BayesianNetwork`, for the tests of the guides."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn


class Hierarchical(PyroModule):
    """A classifier whose weights' prior scale has a prior of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 3)
        self.prior_scale = PyroSample(dist.LogNormal(0.0, 1.0))
        self.fc.weight = PyroSample(lambda _: dist.Normal(0.0, self.prior_scale).expand([3, 4]).to_event(2))
        self.fc.bias = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.fc(x)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Categorical(logits=logits), obs=y)
        return logits


class PositiveWeights(PyroModule):
    """A classifier whose weights are positive by their prior."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 3, bias=False)
        self.fc.weight = PyroSample(dist.HalfNormal(1.0).expand([3, 4]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.fc(x)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Categorical(logits=logits), obs=y)
        return logits
