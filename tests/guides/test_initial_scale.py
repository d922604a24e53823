"""The scale that variational posteriors start at, chosen by −ELBO."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.guides import AutoLowRank, AutoMatrixNormal, AutoMeanField
from wiu_pyro.guides.initial_scale import least_loss_scale
from wiu_pyro.nn import BayesianNetwork, Normal
from wiu_pyro.testing import small_classifier

GUIDES = [AutoMeanField, AutoLowRank, AutoMatrixNormal]


def log_sds(guide):
    return guide.variance().log() / 2 if isinstance(guide, AutoMatrixNormal) else guide.log_scale.detach()


@pytest.mark.parametrize(
    ("best", "expected"), [(1.0, 0.1), (0.1, 0.1), (0.012, 0.01), (1e-5, 0.001)], ids=["wide", "0.1", "0.01", "least"]
)
def test_scale_of_the_least_loss_is_found_and_left(best, expected):
    at = []
    found = least_loss_scale(at.append, lambda batch: torch.tensor(abs(math.log(at[-1] / best))), [(torch.ones(1),)])
    assert found == expected == at[-1]


def test_losses_that_are_nowhere_finite_leave_the_widest_scale():
    at = []
    assert least_loss_scale(at.append, lambda batch: torch.tensor(math.nan), [(torch.ones(1),)]) == 0.1 == at[-1]


@pytest.mark.parametrize("make", GUIDES)
def test_network_that_bears_no_noise_starts_at_a_small_scale(make):
    torch.manual_seed(0)
    inputs = torch.randn(200, 4)
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.mul_(300.0)  # sure of its classes, and wrong as soon as its weights move
    labels = net(inputs).argmax(1)
    model = BayesianNetwork(net, Normal(1000.0), num_data=200)
    guide = make(model)
    wiu.fit(model, guide, (inputs, labels), epochs=1, learning_rate=1e-12)
    assert guide.start_scale < 0.1
    torch.testing.assert_close(log_sds(guide).exp(), torch.full((15,), 1000.0 * guide.start_scale), rtol=1e-3, atol=0)
    assert guide.least_travel() == pytest.approx(-math.log(guide.start_scale))


@pytest.mark.parametrize("make", GUIDES)
def test_given_scale_is_kept_as_is_a_guide_that_was_set_up_before(make):
    model, data = small_classifier()
    given = make(model, init_scale=0.5)
    wiu.fit(model, given, data, epochs=1, learning_rate=1e-12)
    assert given.start_scale == 0.5
    before = make(model)
    wiu.fit(model, before, data, epochs=0)
    sds = log_sds(before).clone()
    wiu.fit(model, before, data, epochs=1, learning_rate=1e-12)
    torch.testing.assert_close(log_sds(before), sds)


def test_choice_takes_no_random_numbers_of_the_training():
    model, data = small_classifier()
    first = wiu.fit(model, AutoMeanField(model, init_scale=0.1), data, epochs=2, seed=3)
    chosen = AutoMeanField(model)
    second = wiu.fit(model, chosen, data, epochs=2, seed=3)
    assert (first.losses == second.losses).all() or chosen.start_scale != 0.1
