"""Weights that no datum ever reaches: their posterior is their prior, whatever the approximation."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.datasets import load
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField, closed_form
from wiu_pyro.nn import BayesianNetwork, FanInNormal

LAPLACE = [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace]
DIGITS_DEAD = [0, 32, 39]

pytestmark = pytest.mark.training


def network(pixels: int, hidden: int) -> BayesianNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return BayesianNetwork(net, FanInNormal())


def dead_weights(fit, dead: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return |mean| / prior sd and sd / prior sd of the weights from inputs that are always zero."""
    closed = closed_form(fit.guide, fit.structure)
    prior_sd = fit.structure.priors["1.weight"].stddev[:, dead]
    return closed.mean["1.weight"][:, dead].abs() / prior_sd, closed.sd["1.weight"][:, dead] / prior_sd


def check(fit, dead: torch.Tensor, tolerance: float) -> None:
    means, ratios = dead_weights(fit, dead)
    assert means.max() <= 0.02
    assert (ratios - 1).abs().max() <= tolerance
    # and the others have learnt something
    alive = torch.ones(fit.structure.layers[0].shapes["weight"][1], dtype=torch.bool)
    alive[dead] = False
    assert dead_weights(fit, alive)[1].min() < 0.95


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    x, y = data.images, data.labels
    assert (x.flatten(1)[:, DIGITS_DEAD] == 0).all()
    model = network(64, 12)
    options = {"epochs": 30, "learning_rate": 5e-3, "batch_size": 64}
    return model, (x, y), wiu.fit(model, AutoKFACLaplace(model), (x, y), **options)


@pytest.mark.parametrize("guide_class", LAPLACE)
def test_weights_of_dead_digits_pixels_are_at_their_prior_under_laplace(digits, guide_class):
    model, data, point = digits
    fit = wiu.fit(model, guide_class(model), data, epochs=0, start=point)
    check(fit, torch.tensor(DIGITS_DEAD), 1e-3)


def test_weights_of_dead_digits_pixels_are_at_their_prior_under_mean_field(digits):
    model, data, point = digits
    guide = AutoMeanField(model)
    fit = wiu.fit(model, guide, data, epochs=80, learning_rate=1e-2, batch_size=128, start=point)
    check(fit, torch.tensor(DIGITS_DEAD), 0.05)


@pytest.fixture(scope="module")
def mnist():
    data = load("mnist", root=os.environ["WIU_DATA"], download=False)
    x, y = data.images[:4000], data.labels[:4000]
    dead = (data.images.flatten(1) == 0).all(0).nonzero().flatten()  # in all 60,000 images, not in the subset alone
    assert len(dead) == 67
    model = network(784, 10)
    options = {"epochs": 12, "learning_rate": 5e-3, "batch_size": 100}
    return model, (x, y), dead, wiu.fit(model, AutoKFACLaplace(model), (x, y), **options)


@pytest.mark.needs_data
@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace])
def test_weights_of_dead_mnist_pixels_are_at_their_prior_under_laplace(mnist, guide_class):
    model, data, dead, point = mnist
    check(wiu.fit(model, guide_class(model), data, epochs=0, start=point), dead, 1e-3)


@pytest.mark.needs_data
def test_weights_of_dead_mnist_pixels_are_at_their_prior_under_mean_field(mnist):
    model, data, dead, point = mnist
    options = {"epochs": 25, "learning_rate": 1e-2, "batch_size": 100}
    check(wiu.fit(model, AutoMeanField(model), data, start=point, **options), dead, 0.05)
