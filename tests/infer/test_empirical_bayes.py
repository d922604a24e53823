"""The prior's scales of a mean-field posterior, learned while it is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoKFACLaplace, AutoMeanField, PriorTuning
from wiu_pyro.infer.empirical_bayes import EmpiricalBayes
from wiu_pyro.nn import ScaleMixtureNormal
from wiu_pyro.testing import small_classifier

TUNING = PriorTuning("empirical-bayes", per="layer", when="online", burn_in=2, learning_rate=0.5)


def trained(*, tuning=TUNING, **options):
    model, data = small_classifier(num_data=60)
    return wiu.fit(model, AutoMeanField(model), data, tune_prior=tuning, **{"epochs": 6, **options})


@pytest.mark.parametrize("per", ["network", "layer", "site"])
def test_closed_form_is_where_the_kl_is_least(per):
    model, data = small_classifier(num_data=60)
    guide = AutoMeanField(model)
    fit = wiu.fit(model, guide, data, epochs=2)
    tuner = EmpiricalBayes(guide, PriorTuning("empirical-bayes", per=per, when="online"), fit.structure)
    for name, found in tuner.best().items():
        sites = tuner.groups[name]

        def kl(log_scale: float, sites: tuple[str, ...] = sites) -> float:
            guide.set_prior_scales(dict.fromkeys(sites, math.exp(log_scale)))
            return guide.kl_divergence().item()

        best = scipy.optimize.minimize_scalar(kl, bounds=(-4, 4), method="bounded").x
        assert found == pytest.approx(math.exp(best), rel=2e-3)


def test_closed_form_does_not_depend_on_the_present_scale():
    model, data = small_classifier(num_data=60)
    guide = AutoMeanField(model)
    fit = wiu.fit(model, guide, data, epochs=2)
    tuner = EmpiricalBayes(guide, TUNING, fit.structure)
    before = tuner.best()
    guide.set_prior_scales({"0.weight": 0.3, "0.bias": 0.3})
    assert tuner.best() == pytest.approx(before)


def test_scales_stay_for_the_burn_in_and_then_go_a_part_of_the_way(monkeypatch):
    scales, after = [], EmpiricalBayes.after_epoch

    def noted(self, number):
        before = {name: self.guide.prior_scales.get(sites[0], 1.0) for name, sites in self.groups.items()}
        best = self.best()
        after(self, number)
        now = {name: self.guide.prior_scales.get(sites[0], 1.0) for name, sites in self.groups.items()}
        scales.append((number, before["0"], best["0"], now["0"]))

    monkeypatch.setattr(EmpiricalBayes, "after_epoch", noted)
    trained()
    assert [number for number, *_ in scales] == [1, 2, 3, 4, 5]  # after the last epoch the prior stays
    assert scales[0][1] == scales[0][3] == 1.0
    for _, before, best, now in scales[1:]:
        assert now == pytest.approx(math.sqrt(before * best))


@pytest.mark.training
def test_scale_of_a_layer_ends_at_its_fixed_point():
    fit = trained(epochs=300, learning_rate=0.02, batch_size=60)
    tuner = EmpiricalBayes(fit.guide, TUNING, fit.structure)
    for name, found in fit.guide.prior_record.groups.items():
        assert found == pytest.approx(tuner.best()[name], rel=0.03)


def test_prior_in_force_is_that_of_the_fit_its_file_and_its_tables():
    fit = trained(track="epoch")
    record = fit.guide.prior_record
    scale = record.groups["2"]
    assert scale != 1.0
    assert record.consistent
    assert fit.structure.priors["2.bias"].base_dist.scale.unique().item() == pytest.approx(scale)
    idata = wiu.to_inference_data(fit, num_samples=4)
    attrs = idata["posterior"].attrs
    assert attrs["prior_tuned"].endswith("tuned by empirical Bayes, during training")
    assert f"{scale:.3g} (2)" in attrs["prior_tuned"]
    assert attrs["prior_trained_with"] == "yes"
    assert "log_marginal_likelihood" not in attrs  # the ELBO is a bound on it
    assert float(idata["moments_2"]["bias_prior_sd"]) == pytest.approx(scale, rel=1e-6)
    kl = float(wiu.diagnostics.layer_uncertainty(idata)["kl"].sum())
    assert kl == pytest.approx(fit.guide.kl_divergence().item(), rel=1e-4)
    assert fit.track.figures["kl"].shape == (6, 2)


def test_tracked_kl_is_that_from_the_prior_in_force():
    fit = trained(track="epoch")
    contraction = np.asarray(fit.track.figures["contraction"][-1])
    scale = [fit.guide.prior_record.groups[name] for name in ("0", "2")]
    free = trained(track="epoch", tuning=None)
    assert not np.allclose(contraction, free.track.figures["contraction"][-1])
    assert all(value < 1 for value in scale)


def test_second_fit_goes_on_under_the_prior_it_has():
    model, data = small_classifier(num_data=60)
    guide = AutoMeanField(model)
    first = wiu.fit(model, guide, data, epochs=6, tune_prior=TUNING)
    scales = dict(guide.prior_scales)
    second = wiu.fit(model, guide, data, epochs=1)
    assert guide.prior_scales == scales
    for name, prior in first.structure.priors.items():
        assert torch.equal(prior.base_dist.scale, second.structure.priors[name].base_dist.scale)


def test_word_alone_waits_ten_epochs_and_goes_layer_by_layer():
    fit = trained(tuning="empirical-bayes", epochs=11)
    tuning = fit.guide.prior_record.tuning
    assert (tuning.per, tuning.burn_in, tuning.when) == ("layer", 10, "online")
    assert set(fit.guide.prior_record.groups) == {"0", "2"}
    with pytest.raises(GuideError, match="needs more epochs than its burn-in of 10, but epochs is 10"):
        trained(tuning="empirical-bayes", epochs=10)


def test_layers_at_a_point_estimate_keep_their_prior():
    model, data = small_classifier(num_data=60)
    fit = wiu.fit(model, AutoMeanField(model, point="0"), data, epochs=6, tune_prior=TUNING)
    assert set(fit.guide.prior_record.groups) == {"2"}


def test_other_guides_and_other_priors_are_refused():
    model, data = small_classifier(num_data=60)
    with pytest.raises(GuideError, match="Empirical Bayes needs a mean-field posterior, but this is an AutoDiagonalL"):
        wiu.fit(model, AutoDiagonalLaplace(model), data, tune_prior="empirical-bayes")
    with pytest.raises(GuideError, match="A Laplace guide's prior is tuned online by its evidence"):
        wiu.fit(model, AutoKFACLaplace(model, tune_prior=TUNING), data, epochs=6)
    with pytest.raises(GuideError, match='tune_prior="empirical-bayes" with AutoMeanField'):
        wiu.fit(model, AutoMeanField(model), data, tune_prior="marginal-likelihood")
    with pytest.raises(GuideError, match="Empirical Bayes changes the prior while the posterior is trained"):
        PriorTuning("empirical-bayes")
    mixture = wiu.nn.under_prior(model, ScaleMixtureNormal())
    with pytest.raises(PriorError, match="Empirical Bayes needs Normal priors"):
        wiu.fit(mixture, AutoMeanField(mixture), data, epochs=6, tune_prior=TUNING)
