"""Mixtures of Normals of any number of scales."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch

from wiu_pyro.errors import PriorError
from wiu_pyro.nn import NormalMixture, ScaleMixtureNormal


def of(prior, shape=(3, 4)) -> dist.Distribution:
    return prior.distribution(torch.empty(shape), name="weight", module=None)


def test_density_is_the_weighted_sum_of_the_components():
    w = torch.tensor([[0.001, 0.3, -2.0]])
    scales, weights = (1.0, 0.1, 0.004), (0.2, 0.3, 0.5)
    parts = [
        weight * torch.distributions.Normal(0.0, scale).log_prob(w.double()).exp()
        for weight, scale in zip(weights, scales)
    ]
    found = of(NormalMixture(scales, weights), (1, 3)).log_prob(w)
    torch.testing.assert_close(found, sum(parts).log().sum().float())


def test_two_scales_are_the_scale_mixture():
    w = torch.randn(3, 4)
    expected = of(ScaleMixtureNormal(0.5, 0.02, 0.1)).log_prob(w)
    torch.testing.assert_close(of(NormalMixture((0.5, 0.02), (0.1, 0.9))).log_prob(w), expected)


def test_one_scale_is_a_normal():
    w = torch.randn(3, 4)
    torch.testing.assert_close(of(NormalMixture((0.3,))).log_prob(w), dist.Normal(0, 0.3).log_prob(w).sum())


def test_scales_without_weights_have_the_same_and_the_variance_is_their_mean_square():
    prior = NormalMixture((2.0, 0.5))
    assert prior.probabilities == (0.5, 0.5)
    assert of(prior, (1,)).variance.item() == pytest.approx((4 + 0.25) / 2)


@pytest.mark.parametrize("weights", [(0.5,), (0.5, 0.6), (1.0, 0.0), (math.nan, 0.5)])
def test_weights_that_are_no_probabilities_are_refused(weights):
    with pytest.raises(PriorError, match="needs as many positive weights that add up to 1"):
        NormalMixture((1.0, 0.1), weights)


def test_scales_that_are_none_are_refused():
    with pytest.raises(PriorError, match="at least one scale"):
        NormalMixture(())
    with pytest.raises(PriorError, match=r"scales\[1\] of a prior must be a positive"):
        NormalMixture((1.0, -0.1))
