"""A fit in a process of its own, to be killed: ``python -m tests.infer.killed CHECKPOINT``."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.nn import BayesianNetwork

EPOCHS = 12


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
    return x, x[:, :3].argmax(1)


def whole_fit(checkpoint: str | None = None) -> wiu.Fit:
    """Fit a network with running statistics and dropout on a loader that shuffles by the global state."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.ReLU(), nn.Linear(5, 3))
    model = BayesianNetwork(net)
    loader = DataLoader(TensorDataset(*data()), batch_size=12, shuffle=True)
    options = {"track": 5, "validation": data(), "rate_warmup": 1, "kl_warmup": 2, "average": 0.5, "max_norm": 1e3}
    return wiu.fit(model, AutoMeanField(model), loader, epochs=EPOCHS, seed=4, checkpoint=checkpoint, **options)


if __name__ == "__main__":
    whole_fit(sys.argv[1])
