"""Ensembles trained and joined: members apart from seeds to weights, predictions the mixture over them by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoEnsemble, AutoKFACLaplace, AutoMeanField, AutoPointEstimate, by_name, known_guides
from wiu_pyro.infer import ensemble_of, predict
from wiu_pyro.infer.convergence import Convergence
from wiu_pyro.infer.ensemble import member_seeds
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import small_classifier

SIZE = 3


def fitted(member=None, **options):
    model, data = small_classifier()
    return wiu.fit(model, AutoEnsemble(model, member=member, size=SIZE), data, **{"epochs": 2, **options}), data


@pytest.fixture(scope="module")
def points():
    return fitted()


@pytest.fixture(scope="module")
def kfac():
    return fitted(AutoKFACLaplace)


def logits(fit, data):
    """The outputs of a network at its own point estimate, by torch alone."""
    with torch.no_grad():
        return torch.func.functional_call(fit.model.net, fit.point_estimate, (data[0],)).double().numpy()


def probabilities(fit, data):
    return special.softmax(logits(fit, data), -1)


def assert_functional_variance_is_total(found, alone, fit, data):
    """By the law of total variance: the mean of the members' own, and the variance of their means."""
    between = np.var([logits(one, data) for one in fit.members], 0)
    within = np.mean([one.functional_variance for one in alone], 0)
    np.testing.assert_allclose(found.functional_variance, within + between, rtol=1e-4)


def test_each_member_is_the_fit_of_its_own_seed_from_fresh_weights(points):
    fit, data = points
    assert [one.seed for one in fit.members] == member_seeds(0, SIZE) == [0, 100_000, 200_000]
    for one in fit.members:
        torch.manual_seed(one.seed)
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        # fresh_weights goes through the modules by depth and name, as nn.Sequential makes them
        model = BayesianNetwork(net, num_data=len(data[0]))
        alone = wiu.fit(model, AutoPointEstimate(model), data, epochs=2, seed=one.seed)
        for name, value in alone.point_estimate.items():
            torch.testing.assert_close(one.point_estimate[name], value)


def test_the_model_holds_its_own_weights_again_afterwards():
    model, data = small_classifier()
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    wiu.fit(model, AutoEnsemble(model, size=2), data, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())


def test_point_members_are_mixed_by_hand(points):
    fit, data = points
    each = np.stack([probabilities(one, data) for one in fit.members])
    found = predict(fit, data)
    mean = each.mean(0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.member_mean, each, atol=1e-6)
    np.testing.assert_allclose(found.point_mean, each[0], atol=1e-6)
    np.testing.assert_allclose(found.predictive_entropy, stats.entropy(mean, axis=1), rtol=1e-4)
    expected = stats.entropy(each, axis=2).mean(0)
    np.testing.assert_allclose(found.expected_entropy, expected, rtol=1e-4)
    np.testing.assert_allclose(found.mutual_information, stats.entropy(mean, axis=1) - expected, atol=1e-6)
    np.testing.assert_allclose(found.probability_variance, each.var(0), atol=1e-7)
    labels = data[1].numpy()
    np.testing.assert_allclose(found.log_likelihood, np.log(each[:, np.arange(len(labels)), labels]), atol=1e-5)
    assert found.lower is None
    assert found.member_variance is None


@pytest.mark.parametrize("kind", ["linearised", "sampled"])
def test_members_with_a_posterior_are_mixed_from_what_each_predicts_alone(kfac, kind):
    fit, data = kfac
    draws = 60
    found = predict(fit, data, kind=kind, num_samples=draws, seed=5)
    alone = [
        predict(one, data, kind=kind, num_samples=draws, seed=seed)
        for one, seed in zip(fit.members, member_seeds(5, SIZE), strict=True)
    ]
    mean = np.mean([one.mean for one in alone], 0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.expected_entropy, np.mean([one.expected_entropy for one in alone], 0), atol=1e-5)
    within = np.mean([one.probability_variance for one in alone], 0)
    between = np.var([one.mean for one in alone], 0)
    np.testing.assert_allclose(found.probability_variance, within + between, atol=1e-6)
    np.testing.assert_allclose(found.log_likelihood, np.concatenate([one.log_likelihood for one in alone]), atol=1e-5)
    assert (found.lower <= np.min([one.mean for one in alone], 0)).all()
    np.testing.assert_allclose(found.member_variance, [one.probability_variance for one in alone], atol=1e-6)
    if kind == "linearised":
        assert_functional_variance_is_total(found, alone, fit, data)


def test_intervals_are_quantiles_of_all_members_draws_together():
    fit, data = fitted(AutoMeanField)
    found = predict(fit, data, num_samples=40)
    draws = []
    for one, seed in zip(fit.members, member_seeds(0, SIZE), strict=True):
        for weights in wiu.infer.draw_weights(one, num_samples=40, seed=seed):
            with torch.no_grad():
                outputs = torch.func.functional_call(one.model.net, weights, (data[0],))
            draws.append(torch.softmax(outputs, -1).numpy())
    np.testing.assert_allclose(found.lower, np.quantile(draws, 0.025, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.upper, np.quantile(draws, 0.975, axis=0), atol=1e-6)


@pytest.mark.parametrize("link", ["probit", "bridge", "bridge_norm"])
def test_closed_forms_are_mixed_too_and_have_no_interval(kfac, link):
    fit, data = kfac
    found = predict(fit, data, link=link)
    alone = [predict(one, data, link=link) for one in fit.members]
    mean = np.mean([one.mean for one in alone], 0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.predictive_entropy, stats.entropy(mean.astype(float), axis=1), rtol=1e-4)
    assert found.lower is None
    assert (found.mutual_information is None) == (link == "probit")
    assert_functional_variance_is_total(found, alone, fit, data)
    if link == "probit":
        return
    expected = np.mean([one.expected_entropy for one in alone], 0)
    np.testing.assert_allclose(found.expected_entropy, expected, atol=1e-6)
    np.testing.assert_allclose(found.mutual_information, found.predictive_entropy - expected, atol=1e-6)
    variance = np.mean([one.probability_variance for one in alone], 0) + np.var([one.mean for one in alone], 0)
    np.testing.assert_allclose(found.probability_variance, variance, atol=1e-6)


@pytest.mark.parametrize("member", [None, AutoKFACLaplace, AutoMeanField])
def test_a_regression_has_the_moments_of_a_mixture_of_normals(member):
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    data = (x, x.sum(1, keepdim=True))
    model = BayesianNetwork(nn.Linear(3, 1), likelihood="normal", noise_scale=0.3)
    fit = wiu.fit(model, AutoEnsemble(model, member=member, size=SIZE), data, epochs=3)
    found = predict(fit, data, num_samples=400)
    np.testing.assert_allclose(found.mean, found.member_mean.mean(0), rtol=1e-5)
    within = 0 if found.member_variance is None else found.member_variance.mean(0)
    np.testing.assert_allclose(found.functional_variance, within + found.member_mean.var(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.variance, found.functional_variance + 0.3**2, rtol=1e-5)
    if member is None:  # the mixture of three Normals, by its distribution function: se of a quantile from 1,200 draws
        for end, q in (("lower", 0.025), ("upper", 0.975)):
            value = getattr(found, end)
            reached = stats.norm.cdf(value, found.member_mean, 0.3).mean(0)
            assert (np.abs(reached - q) < 5 * (q * (1 - q) / (400 * SIZE)) ** 0.5).all()


def test_batches_of_any_size_give_the_same_prediction(kfac):
    fit, data = kfac
    whole = predict(fit, data, link="probit")
    parts = predict(
        fit, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=7), link="probit"
    )
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-6)


def test_running_statistics_are_each_members_own():
    torch.manual_seed(0)
    data = (torch.randn(40, 4) * 3 + 2, torch.arange(40) % 3)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model = BayesianNetwork(net)
    fit = wiu.fit(model, AutoEnsemble(model, size=2), data, epochs=4)
    means = [one.unsampled["1.running_mean"] for one in fit.members]
    assert not torch.allclose(*means)
    found = predict(fit, data)
    for row, one in zip(found.member_mean, fit.members, strict=True):
        weights = {**one.point_estimate, **one.unsampled}
        with torch.no_grad():
            logits = torch.func.functional_call(model.net.eval(), weights, (data[0],))
        np.testing.assert_allclose(row, torch.softmax(logits, -1).numpy(), atol=1e-5)


def test_another_kind_of_member_starts_at_the_same_networks_without_training_again(points):
    fit, data = points
    other = wiu.fit(fit.model, AutoEnsemble(fit.model, member=AutoKFACLaplace, size=SIZE), data, epochs=0, start=fit)
    for one, point in zip(other.members, fit.members, strict=True):
        for name, value in point.point_estimate.items():
            assert torch.equal(one.point_estimate[name], value)
        np.testing.assert_array_equal(one.losses, point.losses)
    assert other.convergence == fit.convergence


@pytest.mark.parametrize("start", [{}, [{}, {}]])
def test_starts_are_one_for_each_member(start):
    model, data = small_classifier()
    with pytest.raises(GuideError, match=r"needs no start.* or one for each, but got"):
        wiu.fit(model, AutoEnsemble(model, size=SIZE), data, epochs=1, start=start)


def test_a_prior_of_each_members_own_is_refused():
    model, data = small_classifier()
    with pytest.raises(GuideError, match=r"stand under one prior, but tune_prior would give each its own\."):
        wiu.fit(model, AutoEnsemble(model, member=AutoKFACLaplace), data, epochs=1, tune_prior="marginal-likelihood")


def test_convergence_is_that_of_all_members():
    fit, _ = fitted(epochs=12, learning_rate=1e-6)
    assert fit.convergence.converged is True
    assert fit.convergence.detail.startswith("3 of 3 members converged; the slowest: −log joint density changed by")
    assert fit.convergence.change == max(one.convergence.change for one in fit.members)


@pytest.mark.parametrize(
    ("verdicts", "converged", "detail"),
    [
        ((True, False, True), False, "2 of 3 members converged; one that did not: of member 1"),
        ((None, False, True), False, "1 of 3 members converged; one that did not: of member 1"),
        ((True, True, None), None, "of member 2"),
    ],
)
def test_one_member_that_has_not_converged_is_the_ensembles_verdict(points, verdicts, converged, detail):
    fit, _ = points
    changes = (0.2, 0.1, math.nan)
    found = ensemble_of(
        [
            replace(one, convergence=Convergence(verdict, change, 0.01, f"of member {number}"))
            for number, (one, verdict, change) in enumerate(zip(fit.members, verdicts, changes))
        ]
    ).convergence
    assert found == Convergence(converged, 0.2, 0.01, detail)


def test_losses_and_validation_are_means_over_members():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoEnsemble(model, size=2), data, epochs=3, validation=data)
    np.testing.assert_allclose(fit.losses, np.mean([one.losses for one in fit.members], 0))
    np.testing.assert_allclose(fit.validation["nll"], np.mean([one.validation["nll"] for one in fit.members], 0))


def test_fits_made_elsewhere_are_joined():
    fits = []
    for seed in range(2):
        model, data = small_classifier()
        fits.append(wiu.fit(model, AutoMeanField(model), data, epochs=1, seed=seed))
    fit = ensemble_of(fits)
    assert fit.networks == tuple(fits)
    alone = [
        predict(one, data, num_samples=20, seed=seed).mean for one, seed in zip(fits, member_seeds(0, 2), strict=True)
    ]
    np.testing.assert_allclose(predict(fit, data, num_samples=20).mean, np.mean(alone, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("seeds", "guides", "message"),
    [
        ([0], [AutoMeanField], "joins two fits or more, but got 1"),
        ([0, 0], [AutoMeanField] * 2, r"a seed of its own, but they have \[0, 0\]"),
        ([0, 1], [AutoMeanField, AutoPointEstimate], "got AutoMeanField, AutoPointEstimate"),
    ],
)
def test_what_is_no_ensemble_is_not_joined(seeds, guides, message):
    model, data = small_classifier()
    fits = [wiu.fit(model, guide(model), data, epochs=1, seed=seed) for seed, guide in zip(seeds, guides, strict=True)]
    with pytest.raises(GuideError, match=message):
        ensemble_of(fits)


MEMBERS = sorted(set(known_guides()) - {"ensemble", "auto-laplace"})  # the last needs its mode


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # each guide's own, of a training this short
@pytest.mark.parametrize("name", MEMBERS)
def test_any_guide_can_be_a_member(name):
    kind = known_guides()[name]
    model, data = small_classifier(dropout=0.25 if getattr(kind, "needs_dropout", False) else 0.0)
    fit = wiu.fit(model, by_name(f"ensemble-{name}")(model, size=2), data, epochs=3, batch_size=8)
    idata = wiu.to_inference_data(fit, data, num_samples=5)
    assert wiu.schema.attrs(idata)["approximation"] == f"ensemble-{name}"
    assert wiu.schema.dataset(idata, "posterior").sizes["chain"] == 2
    found = predict(fit, data, num_samples=5)
    np.testing.assert_allclose(found.mean, found.member_mean.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.mean.sum(1), 1, atol=1e-5)


def test_members_keep_checkpoints_of_their_own(tmp_path):
    alone, data = fitted(batch_size=8)
    seen = []

    class Watched(AutoPointEstimate):
        def after_step(self, step, total):
            seen.extend(path.name for path in tmp_path.iterdir())

    path = tmp_path / "fit"
    fit, _ = fitted(Watched, batch_size=8, checkpoint=path, checkpoint_seconds=0.0)
    assert {name.partition(".member")[2][0] for name in seen if ".member" in name} == {"0", "1", "2"}
    assert not list(tmp_path.iterdir())
    for one, other in zip(alone.members, fit.members, strict=True):
        assert all(torch.equal(value, other.point_estimate[name]) for name, value in one.point_estimate.items())
