"""Mean field with some layers at a point estimate: their weights are trained, and have no uncertainty."""

from __future__ import annotations

import math

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoMeanField, closed_form
from wiu_pyro.testing import check_guide, small_classifier


def test_mean_field_with_a_layer_at_its_point_estimate_keeps_the_contract():
    check_guide(AutoMeanField, point="0")


def test_objective_is_pyros_in_expectation_but_for_the_constant_of_the_points_prior():
    model, data = small_classifier()
    guide = AutoMeanField(model, point="2")
    guide.setup(data)
    constant = sum(
        (site.base_dist.scale.expand(site.shape()).log() + 0.5 * math.log(2 * math.pi)).sum().item()
        for name, site in model.prior_distributions().items()
        if name.startswith("2.")
    )
    with torch.no_grad(), poutine.block():
        torch.manual_seed(0)
        own = torch.stack([guide.negative_elbo(*data) for _ in range(300)]).double()
        pyros = torch.tensor([Trace_ELBO().loss(model, guide, *data) for _ in range(300)], dtype=torch.float64)
    error = ((own.var() + pyros.var()) / 300).sqrt().item()
    assert abs(own.mean().item() + constant - pyros.mean().item()) < 5 * error


def test_points_are_trained_start_where_they_are_told_and_are_marked_in_moments_and_file():
    model, data = small_classifier()
    start = {name: torch.full(site.shape(), 0.1) for name, site in model.prior_distributions().items()}
    kept = wiu.fit(model, AutoMeanField(model, point="0"), data, epochs=0, start=start)
    torch.testing.assert_close(kept.point_estimate["0.weight"], start["0.weight"])
    fit = wiu.fit(model, AutoMeanField(model, point="0"), data, epochs=2, start=start)
    assert (fit.point_estimate["0.weight"] - 0.1).abs().max() > 0
    found = closed_form(fit.guide, fit.structure)
    assert found.layer_structure == {"0": "point", "2": "mean-field"}
    assert found.sd["0.weight"].abs().max() == 0
    assert found.sd["2.weight"].min() > 0
    layers = wiu.schema.dataset(wiu.to_inference_data(fit, data, num_samples=4), "layers")
    assert layers["structure"].values.tolist() == ["point", "mean-field"]


def test_a_layer_needs_a_posterior_and_a_pattern_a_layer():
    model, data = small_classifier()
    with pytest.raises(GuideError, match="At least one layer needs a posterior"):
        AutoMeanField(model, point="*").setup(data)
    with pytest.raises(GuideError, match="'fc1' matches none"):
        AutoMeanField(model, point="fc1").setup(data)
