"""The prior chosen by held-out data: the multiplier that predicts them best, and what is recorded of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoKFACLaplace, AutoMeanField, PriorTuning
from wiu_pyro.infer import cross_validate_prior, predict
from wiu_pyro.testing.toys import linear_gaussian, small_classifier

INCONSISTENT = "ignore:The posterior's prior is the model's with:UserWarning"
GRID = (0.03, 0.3, 1.0, 3.0)
CROSS = PriorTuning(by="cross-validation", grid=GRID)

pytestmark = pytest.mark.filterwarnings(INCONSISTENT)


def linear():
    problem = linear_gaussian(num_data=12)
    fit = wiu.fit(problem.model, AutoKFACLaplace(problem.model), problem.data, epochs=0, start=problem.mean)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return fit, (x, x @ torch.randn(3, 2, generator=generator, dtype=torch.float64))


def exact_density(fit, held_out) -> float:
    """Mean log density of held-out labels under the Normal predictive of a linear network, in closed form."""
    x, y = held_out
    weight, bias = fit.point_estimate["weight"], fit.point_estimate["bias"]
    jacobian = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    total = 0.0
    for output in range(2):
        places = [3 * output, 3 * output + 1, 3 * output + 2]
        sites = [("weight", places), ("bias", [output])]
        covariance = torch.cat([torch.cat([fit.guide.covariance(a, b) for b in sites], 1) for a in sites])
        sd = (torch.einsum("ni,ij,nj->n", jacobian, covariance, jacobian) + 0.25).sqrt()
        mean = x @ weight[output] + bias[output]
        total += torch.distributions.Normal(mean, sd).log_prob(y[:, output]).mean().item()
    return total


def test_choice_is_the_multiplier_that_predicts_held_out_data_best():
    fit, held_out = linear()
    densities = {scale: exact_density(_under(fit, scale), held_out) for scale in GRID}
    found = cross_validate_prior(fit, held_out, tuning=CROSS)
    assert found.guide.prior_record.groups == {"network": max(densities, key=densities.__getitem__)}
    before, after = found.guide.prior_record.objective
    assert after >= before


def _under(fit, scale):
    guide = fit.guide.with_prior(scale)
    return dataclasses.replace(fit, guide=guide, structure=guide.structure)


def held_out_density(fit, scales, held_out) -> float:
    """Mean log of the probability that the mean prediction gives the label."""
    found = predict(_under(fit, scales), held_out).mean
    return float(np.log(found[np.arange(len(found)), held_out[1].numpy()]).mean())


def test_scale_of_each_layer_is_the_best_of_the_grid_beside_the_others():
    model, data = small_classifier(num_data=60)
    held_out = small_classifier(num_data=40, seed=1)[1]
    fit = wiu.fit(model, AutoKFACLaplace(model), data, epochs=0)
    one = cross_validate_prior(fit, held_out, tuning=CROSS).guide.prior_record
    each = cross_validate_prior(fit, held_out, tuning=dataclasses.replace(CROSS, per="layer")).guide.prior_record
    assert set(each.groups) == {"0", "2"}
    assert set(each.groups.values()) <= set(GRID)
    assert each.objective[0] == one.objective[0]
    # the layer chosen last; and what is noted is the density of what was chosen
    densities = {scale: held_out_density(fit, {"0": each.groups["0"], "2": scale}, held_out) for scale in GRID}
    assert each.groups["2"] == max(densities, key=densities.__getitem__)
    assert each.objective[1] == pytest.approx(densities[each.groups["2"]], abs=1e-5)


def test_fit_takes_the_validation_data_for_it_and_keeps_the_weights():
    model, data = small_classifier(num_data=60)
    held_out = small_classifier(num_data=40, seed=1)[1]
    plain = wiu.fit(model, AutoKFACLaplace(model), data, epochs=3)
    model, _ = small_classifier(num_data=60)
    found = wiu.fit(model, AutoKFACLaplace(model), data, epochs=3, validation=held_out, tune_prior="cross-validation")
    torch.testing.assert_close(found.point_estimate, plain.point_estimate)
    assert found.guide.prior_record.tuning.by == "cross-validation"
    scale = found.guide.prior_record.groups["network"]
    assert found.structure.priors["2.bias"].base_dist.scale.unique().item() == pytest.approx(scale)
    assert np.isfinite(found.guide.prior_record.objective).all()


def test_fit_without_validation_data_is_refused():
    model, data = small_classifier()
    with pytest.raises(GuideError, match=r"needs held-out data. Pass validation="):
        wiu.fit(model, AutoKFACLaplace(model), data, epochs=0, tune_prior="cross-validation")


def test_held_out_data_without_labels_are_refused():
    fit, (x, _) = linear()
    with pytest.raises((GuideError, wiu.errors.WiuError), match=r"labels|validation"):
        cross_validate_prior(fit, (x,), tuning=CROSS)


def test_a_posterior_that_is_none_of_laplace_is_refused():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(GuideError, match="needs a Laplace posterior"):
        cross_validate_prior(fit, data)
