"""Posteriors made by hand around small networks, in which it is known what every weight is worth."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import wiu_pyro as wiu

CLASSES, USED, UNUSED = 3, 6, 10


def images(num: int = 400, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs whose first entries decide the class, and whose others are constant zero, with labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % CLASSES
    x = torch.zeros(num, USED + UNUSED)
    x[:, :USED] = 0.3 * torch.randn(num, USED, generator=generator)
    for label in range(CLASSES):
        x[labels == label, 2 * label : 2 * label + 2] += 1.5
    return x, labels


def mean_field(net: nn.Module, sds: dict[str, torch.Tensor], *, num: int = 400) -> wiu.Fit:
    """Return a mean-field fit whose means are the network's weights and whose sds are given by site."""
    data = images(num)
    model = wiu.nn.BayesianNetwork(net, prior=wiu.nn.Normal(1.0), num_data=num)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), data, epochs=0)
    with torch.no_grad():
        for site, place, _ in fit.guide.sites():
            fit.guide.log_scale[place] = sds[site].reshape(-1).log()
    return fit


def planted(num: int = 6000, *, seed: int = 0) -> tuple[wiu.Fit, tuple[torch.Tensor, torch.Tensor]]:
    """Return a fit of one layer, some of whose weights are useless and larger than the others, and images.

    The useless ones come from inputs that are constant zero and lie two sds from 0, the sd being the prior's; the
    useful ones are known to 2 %. The labels are those the network gives itself, so that every change is a loss.
    """
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(USED + UNUSED, CLASSES))
    weight = torch.sign(torch.randn(CLASSES, USED + UNUSED, generator=generator))
    sd = torch.full_like(weight, 0.01)
    weight[:, :USED] *= 0.5
    weight[:, USED:] *= 2
    sd[:, USED:] = 1.0
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
    x = torch.randn(num, USED + UNUSED, generator=generator)
    x[:, USED:] = 0
    return mean_field(net, {"0.weight": sd, "0.bias": torch.full((CLASSES,), 0.01)}), (x, net(x).argmax(1))


def all_needed(num: int = 6000) -> tuple[wiu.Fit, tuple[torch.Tensor, torch.Tensor]]:
    """Return a fit of one layer all of whose weights decide, and images with the labels it gives them itself."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(USED + UNUSED, CLASSES))
    with torch.no_grad():
        net[0].weight.copy_(torch.sign(torch.randn(net[0].weight.shape, generator=generator)))
        net[0].bias.zero_()
    sds = {"0.weight": torch.full_like(net[0].weight, 0.1).detach(), "0.bias": torch.full((CLASSES,), 0.1)}
    x = torch.randn(num, USED + UNUSED, generator=generator)
    return mean_field(net, sds), (x, net(x).argmax(1))


def two_layers(*, guide: type | None = None, epochs: int = 30, seed: int = 0) -> tuple[wiu.Fit, tuple]:
    """Return a fit of a trained network of two layers, and its data."""
    data = images(120)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(USED + UNUSED, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    model = wiu.nn.BayesianNetwork(net, num_data=120)
    kind = guide or wiu.guides.AutoKFACLaplace
    return wiu.fit(model, kind(model), data, epochs=epochs, learning_rate=0.02, seed=seed), data


def network_at(fit: wiu.Fit, weights: dict[str, torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """Return the class probabilities of a two-layer network at given weights, written out."""
    hidden = torch.tanh(x @ weights["0.weight"].T + weights["0.bias"])
    return torch.softmax(hidden @ weights["2.weight"].T + weights["2.bias"], -1).detach().numpy()
