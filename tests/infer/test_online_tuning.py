"""The prior tuned while the weights are trained: they end up at the mode under the prior they are given."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField, PriorTuning
from wiu_pyro.testing.toys import linear_gaussian, small_classifier

ONLINE = {"tune_prior": "marginal-likelihood", "tune_when": "online"}


@pytest.mark.training
def test_online_tuning_of_a_linear_network_ends_at_the_greatest_exact_evidence():
    problem = linear_gaussian()

    def exact(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return -linear_gaussian(weight_scale=0.7 * scale, bias_scale=1.5 * scale).log_evidence

    best = scipy.optimize.minimize_scalar(exact, bounds=(-3, 3), method="bounded").x
    guide = AutoFullLaplace(problem.model, **ONLINE)
    fit = wiu.fit(problem.model, guide, problem.data, epochs=150, learning_rate=0.05, batch_size=30)
    found = fit.guide.prior_record
    assert np.log(found.groups["network"]) == pytest.approx(best, abs=0.02)
    assert found.objective[1] == pytest.approx(-exact(best), abs=0.05)
    assert found.consistent


def trained(**options):
    model, data = small_classifier(num_data=60)
    guide_class = options.pop("guide_class", AutoKFACLaplace)
    tuning = options.pop("tuning", PriorTuning(when="online", per="layer"))
    guide = guide_class(model, tune_prior=tuning)
    return wiu.fit(model, guide, data, epochs=6, **options)


def test_record_says_what_each_layer_was_trained_under():
    fit = trained()
    record = fit.guide.prior_record
    assert set(record.groups) == {"0", "2"}
    assert record.scales == record.trained
    assert record.consistent
    assert record.scales["0.weight"] == record.groups["0"] != 1.0
    assert "during training" in record.describe()


def test_tuned_prior_is_that_of_the_fits_structure_and_its_tables():
    fit = trained()
    scale = fit.guide.prior_record.groups["2"]
    assert fit.structure.priors["2.bias"].base_dist.scale.unique().item() == pytest.approx(scale)
    idata = wiu.to_inference_data(fit, num_samples=4)
    assert float(idata["moments_2"]["bias_prior_sd"]) == pytest.approx(scale, rel=1e-6)
    assert idata["posterior"].attrs["prior_trained_with"] == "yes"
    assert "during training" in idata["posterior"].attrs["prior_tuned"]


def test_models_own_prior_stays_what_it_was():
    fit = trained()
    assert fit.model.prior_distributions()["2.bias"].base_dist.scale.unique().item() == 1.0


def test_prior_changes_only_when_it_is_time():
    late = PriorTuning(when="online", burn_in=2, every=3)
    changed, scales = [], {}

    class Watched(AutoDiagonalLaplace):
        cli_name = ""

        def set_prior_scales(self, new):
            if new and new != scales:
                changed.append(new)
            super().set_prior_scales(new)

    trained(tuning=late, guide_class=Watched)
    assert len(changed) == 2  # after epochs 2 and 5 of 6


def test_cheap_curvature_on_the_way_leaves_the_final_one_as_asked():
    fit = trained(tuning=PriorTuning(when="online", curvature="fisher_empirical"))
    assert fit.guide.curvature.kind == "ggn"


def test_columns_left_out_of_the_ggn_are_no_hindrance_to_another_curvature_on_the_way():
    model, data = small_classifier(num_data=60)
    tuning = PriorTuning(when="online", curvature="fisher_empirical")
    guide = AutoKFACLaplace(model, tune_prior=tuning, column_tolerance=1e-3)
    assert wiu.fit(model, guide, data, epochs=3).guide.curvature.kind == "ggn_truncated"


def test_unknown_curvature_on_the_way_is_refused_before_training():
    tuning = PriorTuning(when="online", curvature="fisher", burn_in=5)
    with pytest.raises(GuideError, match="no curvature 'fisher' to tune its prior by. Did you mean 'fisher_"):
        trained(tuning=tuning)


def test_the_same_seed_gives_the_same_prior():
    assert trained(seed=3).guide.prior_record.scales == trained(seed=3).guide.prior_record.scales


@pytest.mark.parametrize("epochs", [0, 1])
def test_online_tuning_without_epochs_to_do_it_in_is_refused(epochs):
    model, data = small_classifier()
    with pytest.raises(GuideError, match=r"burn-in of 1, but epochs is 1|while wiu_pyro.fit trains the weights"):
        wiu.fit(model, AutoKFACLaplace(model), data, epochs=epochs, **ONLINE)


def test_tuning_is_for_laplace_guides():
    model, data = small_classifier()
    with pytest.raises(GuideError, match="for the Laplace guides, but this is an AutoMeanField"):
        wiu.fit(model, AutoMeanField(model), data, epochs=1, **ONLINE)
