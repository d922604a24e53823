"""The Laplace evidence: exact in the linear-Gaussian problem, right gradients, and the prior it chooses."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import product

import numpy as np
import pytest
import scipy.optimize
import torch

import wiu_pyro as wiu
from wiu_pyro.errors import CurvatureError, GuideError, PriorError
from wiu_pyro.guides import (
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoMeanField,
    PriorTuning,
    log_marginal_likelihood,
    tune_prior,
)
from wiu_pyro.linalg import DensePrecision
from wiu_pyro.testing.toys import linear_gaussian, small_classifier

GUIDES = [AutoDiagonalLaplace, AutoKFACLaplace, AutoEKFACLaplace, AutoFullLaplace]
REFUSED = [(AutoEKFACLaplace, "site")]  # its basis holds for a layer's prior up to one factor, see below
EXACT = [AutoKFACLaplace, AutoFullLaplace]
INCONSISTENT = "ignore:The posterior's prior is the model's with:UserWarning"


def linear(guide_class=AutoFullLaplace, *, scale: float = 1.0, **options):
    problem = linear_gaussian(weight_scale=0.7 * scale, bias_scale=1.5 * scale)
    guide = guide_class(problem.model, **options)
    return problem, wiu.fit(problem.model, guide, problem.data, epochs=0, start=problem.mean)


def classifier(guide_class, **options):
    model, data = small_classifier(num_data=60)
    return wiu.fit(model, guide_class(model, **options), data, epochs=0).guide


@pytest.mark.parametrize("guide_class", EXACT)
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_evidence_of_a_linear_gaussian_network_is_its_exact_one(guide_class, scale):
    problem, fit = linear(guide_class, scale=scale)
    assert log_marginal_likelihood(fit.guide).item() == pytest.approx(problem.log_evidence, rel=1e-9)


def test_evidence_of_a_part_of_the_data_is_scaled_to_all_of_them():
    problem, fit = linear()
    twice = tuple(torch.cat([part, part]) for part in problem.data)
    problem.model.num_data = 60
    whole = wiu.fit(problem.model, AutoFullLaplace(problem.model), twice, epochs=0, start=problem.mean)
    with pytest.warns(UserWarning, match="plate stands for 60"):
        part = wiu.fit(problem.model, AutoFullLaplace(problem.model), problem.data, epochs=0, start=problem.mean)
    assert part.guide.curvature.log_likelihood == pytest.approx(2 * fit.guide.curvature.log_likelihood)
    assert log_marginal_likelihood(part.guide).item() == pytest.approx(log_marginal_likelihood(whole.guide).item())


def dense_evidence(posterior, scales: dict[str, torch.Tensor]) -> torch.Tensor:
    """The formula, with every matrix formed: scales by site."""
    prior = posterior.flat_prior()
    sd = prior.scale.double().clone()
    parts = []
    for name, place, _ in posterior.sites():
        parts.append(sd[place] / posterior.prior_scales.get(name, 1.0) * scales[name])
    q = torch.cat(parts) ** -2
    delta = (posterior.loc - prior.loc).double()
    total = posterior.curvature.log_likelihood / posterior.temperature
    total = total - 0.5 * (q * delta.square()).sum() + 0.5 * q.log().sum()
    for block in posterior.blocks:
        own = block.precision.prior_precision.double()
        size = torch.arange(block.precision.numel)
        covariance = block.precision.covariance_between(size, size).double()
        curvature = torch.linalg.inv(covariance) - own.diag()
        total = total - 0.5 * torch.logdet(curvature + q[block.index].diag())
    return total


@pytest.mark.parametrize(
    ("guide_class", "per"), [case for case in product(GUIDES, ["network", "layer", "site"]) if case not in REFUSED]
)
def test_evidence_and_its_gradient_are_those_of_the_formula_with_dense_matrices(guide_class, per):
    posterior = classifier(guide_class)
    names = {"network": ["*"], "layer": ["0", "2"], "site": ["0.weight", "0.bias", "2.weight", "2.bias"]}[per]
    values = [0.5, 2.0, 1.4, 0.8][: len(names)]
    scales = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in zip(names, values)}
    by_site = {
        site: next(scale for name, scale in scales.items() if name in ("*", site, site[0]))
        for site in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    found = log_marginal_likelihood(posterior, scales)
    expected = dense_evidence(posterior, by_site)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    ours, theirs = (torch.autograd.grad(value, list(scales.values())) for value in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("guide_class", GUIDES)
def test_evidence_under_a_scale_is_that_of_the_posterior_under_it(guide_class):
    posterior = classifier(guide_class)
    other = posterior.with_prior({"0": 0.3})
    found = log_marginal_likelihood(posterior, {"0": 0.3}).item()
    assert found == pytest.approx(log_marginal_likelihood(other).item(), rel=1e-5)
    # and from there back
    assert log_marginal_likelihood(other, 1.0).item() == pytest.approx(
        log_marginal_likelihood(posterior).item(), rel=1e-5
    )


def test_tempered_evidence_is_the_normalising_constant_of_the_tempered_posterior():
    """p(D|w)^(1/T) p(w) of a linear network: its integral, by the noise that the power of a Normal has."""
    problem, temperature = linear_gaussian(num_data=8, noise_scale=0.5), 0.25
    x, y = problem.data
    guide = AutoFullLaplace(problem.model, temperature=temperature)
    # the mode of the tempered posterior: that of a noise variance T times as large
    inputs = torch.cat([x, torch.ones(8, 1, dtype=torch.float64)], 1)
    q = torch.tensor([0.7**-2] * 3 + [1.5**-2], dtype=torch.float64)
    noise = 0.25 * temperature
    mode = torch.linalg.solve(inputs.mT @ inputs / noise + q.diag(), inputs.mT @ y / noise).mT
    start = {"weight": mode[:, :-1].clone(), "bias": mode[:, -1].clone()}
    posterior = wiu.fit(problem.model, guide, problem.data, epochs=0, start=start).guide
    # N(y; f, s²)^(1/T) = N(y; f, T s²) · (2π s²)^(-1/2T) (2π T s²)^(1/2)
    labels = inputs @ torch.diag(1 / q) @ inputs.mT + noise * torch.eye(8, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), labels).log_prob(y.mT).sum()
    constant = -0.5 / temperature * np.log(2 * np.pi * 0.25) + 0.5 * np.log(2 * np.pi * noise)
    assert log_marginal_likelihood(posterior).item() == pytest.approx(exact.item() + y.numel() * constant, rel=1e-9)


@pytest.mark.filterwarnings(INCONSISTENT)
@pytest.mark.parametrize("guide_class", GUIDES)
@pytest.mark.parametrize("per", ["network", "layer"])
def test_tuned_scale_is_where_the_evidence_is_greatest(guide_class, per):
    posterior = classifier(guide_class)
    tuned = tune_prior(posterior, per=per)
    names = {"network": ["*"], "layer": ["0", "2"]}[per]

    def loss(logs: np.ndarray) -> float:
        return -log_marginal_likelihood(posterior, dict(zip(names, np.exp(logs).tolist()))).item()

    theirs = scipy.optimize.minimize(loss, np.zeros(len(names)), method="Nelder-Mead", options={"xatol": 1e-6})
    found = [np.log(value) for value in tuned.prior_record.groups.values()]
    np.testing.assert_allclose(found, theirs.x, atol=1e-3)
    before, after = tuned.prior_record.objective
    assert after == pytest.approx(-theirs.fun, rel=1e-6)
    assert before == pytest.approx(-loss(np.zeros(len(names))), rel=1e-6)
    assert log_marginal_likelihood(tuned).item() == pytest.approx(after, rel=1e-5)


@pytest.mark.filterwarnings(INCONSISTENT)
def test_tuned_scale_satisfies_mackays_condition():
    """At the maximum the weights' squares are the effective number of parameters: Σ q w² = γ (MacKay 1992)."""
    tuned = tune_prior(classifier(AutoFullLaplace))
    prior, variance = tuned.flat_prior(), tuned.get_posterior().variance.double()
    q = prior.scale.double() ** -2
    effective = (1 - q * variance).sum()
    torch.testing.assert_close((q * tuned.loc.double().square()).sum(), effective, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings(INCONSISTENT)
def test_iterating_the_tuning_of_a_linear_network_ends_at_the_exact_maximum_of_the_evidence():
    """Tune, move the weights to the mode under the new prior, tune again: MacKay's iteration."""

    def exact(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return -linear_gaussian(weight_scale=0.7 * scale, bias_scale=1.5 * scale).log_evidence

    best = scipy.optimize.minimize_scalar(exact, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8}).x
    scale = 1.0
    for _ in range(12):
        _, fit = linear(scale=scale)
        scale *= tune_prior(fit.guide).prior_record.groups["network"]
    assert np.log(scale) == pytest.approx(best, abs=1e-4)


def test_a_prior_other_than_that_of_training_is_said():
    posterior = classifier(AutoKFACLaplace)
    with pytest.warns(UserWarning, match=r"sd × [\d.]+, tuned by marginal likelihood, after the fit: another than"):
        tuned = tune_prior(posterior)
    assert not tuned.prior_record.consistent


def test_a_prior_that_tuning_leaves_where_it_was_is_no_reason_to_warn():
    scale = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(12):  # train (in closed form) and tune in turn
            _, fit = linear(scale=scale)
            scale *= tune_prior(fit.guide).prior_record.groups["network"]
    _, fit = linear(scale=scale)
    assert tune_prior(fit.guide).prior_record.consistent


@pytest.mark.filterwarnings(INCONSISTENT)
def test_scale_without_a_maximum_is_said_and_bounded():
    """Weights at their prior's mean: the narrower the prior, the greater the evidence."""
    posterior = classifier(AutoDiagonalLaplace)
    posterior.loc = 1e-9 * posterior.loc
    with pytest.warns(UserWarning, match="no maximum in the prior scale of 'network'"):
        tuned = tune_prior(posterior)
    assert 1e-4 <= tuned.prior_record.groups["network"] < 1e-3


@pytest.mark.filterwarnings(INCONSISTENT)
def test_guide_tunes_its_posterior_where_asked_to():
    tuned = classifier(AutoKFACLaplace, tune_prior="marginal-likelihood", tune_per="layer")
    expected = tune_prior(classifier(AutoKFACLaplace), per="layer")
    assert tuned.prior_record.groups == pytest.approx(expected.prior_record.groups)
    assert set(tuned.prior_record.groups) == {"0", "2"}


@pytest.mark.filterwarnings(INCONSISTENT)
def test_weights_at_a_point_estimate_are_given_not_integrated_over():
    from wiu_pyro.guides import AutoLaplace

    model, data = small_classifier()
    part = wiu.fit(model, AutoLaplace(model, structure={"2": "full"}), data, epochs=0).guide
    last = wiu.fit(model, AutoLaplace(model, structure={"0": "full", "2": "full"}), data, epochs=0).guide
    difference = log_marginal_likelihood(last, {"0": 1.0, "2": 3.0}) - log_marginal_likelihood(last)
    found = log_marginal_likelihood(part, 3.0) - log_marginal_likelihood(part)
    torch.testing.assert_close(found, difference, rtol=1e-5, atol=1e-4)


def test_evidence_without_labels_is_refused():
    posterior = classifier(AutoKFACLaplace)
    posterior.curvature = dataclasses.replace(posterior.curvature, log_likelihood=None)
    with pytest.raises(GuideError, match="from inputs alone. Pass labels too"):
        log_marginal_likelihood(posterior)


def test_evidence_of_a_variational_posterior_is_refused():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(GuideError, match="this is a AutoMeanField. Pass fit.guide of a fitted Laplace"):
        log_marginal_likelihood(fit.guide)


@pytest.mark.filterwarnings(INCONSISTENT)
def test_eigenvalue_corrected_factors_refuse_a_scale_for_each_site():
    with pytest.raises(PriorError, match="Scale the whole layer"):
        tune_prior(classifier(AutoEKFACLaplace), per="site")


def test_a_prior_under_which_a_hessian_is_indefinite_has_no_evidence():
    posterior = classifier(AutoFullLaplace)
    negative = DensePrecision(-0.5 * torch.eye(43), posterior.blocks[0].precision.prior_precision)
    posterior.blocks = (dataclasses.replace(posterior.blocks[0], precision=negative),)
    assert torch.isnan(log_marginal_likelihood(posterior, 100.0))
    assert torch.isnan(log_marginal_likelihood(posterior, {"0": 100.0, "2": 50.0}))
    with pytest.raises(CurvatureError, match="not positive"):
        posterior.with_prior(100.0)


@pytest.mark.parametrize("per", ["network", "layer"])
def test_a_hessian_with_negative_curvature_has_no_prior_of_greatest_evidence(per):
    """The evidence grows without bound where prior and curvature cancel."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    model, data = wiu.nn.BayesianNetwork(net, wiu.nn.Normal(0.1), num_data=60), small_classifier(num_data=60)[1]
    guide = AutoFullLaplace(model, curvature="hessian")
    posterior = wiu.fit(model, guide, data, epochs=0).guide
    (block,) = posterior.blocks
    covariance = block.precision.covariance_of(torch.eye(block.precision.numel, dtype=torch.float64))
    lowest = torch.linalg.eigvalsh(torch.linalg.inv(covariance))[0] - 100.0
    assert lowest < -1  # of the likelihood's own Hessian, beside a prior precision of 100
    singular = (100.0 / -lowest).sqrt().item()  # multiplier of the prior's sd at which they cancel
    values = [log_marginal_likelihood(posterior, singular * (1 - 10.0**-k)).item() for k in (2, 4, 6, 8)]
    assert values == sorted(values)
    with pytest.raises(CurvatureError, match="evidence has a maximum, but here the Hessian has negative curvature"):
        tune_prior(posterior, per=per)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune_prior": "evidence"}, "tune_prior has no choice 'evidence'"),
        ({"tune_prior": "marginal-likelihood", "tune_per": "weight"}, "tune_per has no choice 'weight'"),
        ({"tune_prior": "marginal-likelihood", "tune_when": "never"}, "tune_when has no choice 'never'"),
        ({"tune_prior": "cross-validation", "tune_when": "online"}, "by its evidence only"),
        ({"tune_per": "layer"}, "tune_prior is not given"),
    ],
)
def test_tuning_that_is_none_is_refused(options, message):
    model, _ = small_classifier()
    with pytest.raises(GuideError, match=message):
        AutoKFACLaplace(model, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune_prior": "cross-validation"}, r"held-out data, which laplace_approximation does not have"),
        ({"tune_prior": "marginal-likelihood", "tune_when": "online"}, "while wiu_pyro.fit trains the weights"),
    ],
)
def test_tuning_that_takes_a_fit_is_refused_without_one(options, message):
    model, data = small_classifier()
    with pytest.raises(GuideError, match=message):
        AutoKFACLaplace(model.eval(), **options).laplace_approximation(*data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"grid": ()}, "grid is empty"),
        ({"learning_rate": float("nan")}, "'learning_rate' is nan"),
        ({"grid": (1.0, -1.0)}, r"'grid\[1\]' is -1"),
    ],
)
def test_settings_of_a_tuning_are_checked(options, message):
    with pytest.raises((GuideError, PriorError), match=message):
        PriorTuning(**options)
