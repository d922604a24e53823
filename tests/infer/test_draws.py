"""Draws: reproducible, one at a time, and the same through Pyro's `Predictive`."""

from __future__ import annotations

import copy

import pytest
import torch
from pyro.infer import Predictive

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoKFACLaplace, AutoMeanField
from wiu_pyro.infer import draw_weights
from wiu_pyro.testing import small_classifier


@pytest.fixture(params=[AutoMeanField, AutoKFACLaplace])
def fitted(request):
    model, data = small_classifier()
    return wiu.fit(model, request.param(model), data, epochs=1)


def test_more_draws_begin_with_the_same_ones(fitted):
    few, many = (list(draw_weights(fitted, num_samples=number, seed=5)) for number in (2, 4))
    for one, other in zip(few, many):
        assert all(torch.equal(one[site], other[site]) for site in one)


def test_draws_differ_from_each_other_and_between_seeds(fitted):
    first, second = draw_weights(fitted, num_samples=2, seed=0)
    other = next(iter(draw_weights(fitted, num_samples=1, seed=1)))
    assert not torch.equal(first["0.weight"], second["0.weight"])
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_copy_of_a_guide_draws_from_its_own_parameters(fitted):
    before = next(iter(draw_weights(fitted, num_samples=1)))
    other = copy.deepcopy(fitted.guide)
    with torch.no_grad():
        other.loc.add_(100.0)
    assert next(iter(draw_weights(other, num_samples=1)))["0.weight"].min() > 50
    assert torch.equal(next(iter(draw_weights(fitted, num_samples=1)))["0.weight"], before["0.weight"])


def test_draws_come_one_at_a_time(fitted):
    draws = draw_weights(fitted, num_samples=10**9)
    assert set(next(draws)) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.slow
def test_vectorised_predictive_has_the_distribution_of_the_sequential_one(fitted):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    moments = []
    for parallel in (False, True):
        torch.manual_seed(1)
        predictive = Predictive(
            fitted.model, guide=fitted.guide, num_samples=300, parallel=parallel, return_sites=["_RETURN"]
        )
        with torch.no_grad():
            logits = predictive(x)["_RETURN"].reshape(300, 3, 3)
        moments.append((logits.mean(0), logits.var(0)))
    (mean, variance), (other, other_variance) = moments
    assert ((mean - other).abs() <= 5 * ((variance + other_variance) / 300).sqrt()).all()
    # a Normal's sample variance has relative standard error √(2/299) = 0.082
    assert ((variance / other_variance).log().abs() <= 5 * 0.082 * 2**0.5).all()


@pytest.mark.parametrize("number", [0, -1])
def test_number_of_draws_must_be_positive(fitted, number):
    with pytest.raises(GuideError, match=f"num_samples must be at least 1, but is {number}"):
        next(draw_weights(fitted, num_samples=number))
