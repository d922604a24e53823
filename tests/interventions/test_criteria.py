"""Criteria of pruning against closed forms, quadrature, and the evidence of models with and without a weight."""

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy import integrate, stats
from torch import nn

import wiu_pyro as wiu
from tests.interventions.planted_networks import two_layers
from wiu_pyro import metrics
from wiu_pyro.export.sources import read_source
from wiu_pyro.interventions.candidates import read_candidates
from wiu_pyro.interventions.criteria import CRITERIA, Evidence, reduction
from wiu_pyro.interventions.surgeon import surgeon_variance


def given(fit, *, conditional=False, data=None):
    source = read_source(fit, model=getattr(fit, "model", None), data=data, num_samples=2, seed=0)
    weights = read_candidates(source, source.chains[0])
    sd = weights.sd_conditional if conditional else weights.sd
    return source, Evidence(weights, sd, torch.Generator().manual_seed(0))


def test_signal_to_noise_and_magnitude_are_those_of_the_moments():
    fit, _ = two_layers(guide=wiu.guides.AutoMeanField, epochs=2)
    _, evidence = given(fit)
    weights = evidence.weights
    expected = metrics.signal_to_noise(weights.mean.numpy(), weights.sd.numpy())
    np.testing.assert_allclose(CRITERIA["signal_to_noise"].score(evidence).numpy(), expected)
    np.testing.assert_array_equal(CRITERIA["magnitude"].score(evidence), weights.mean.abs())


def test_kl_from_a_normal_prior_is_the_closed_form():
    fit, _ = two_layers(guide=wiu.guides.AutoMeanField, epochs=2)
    _, evidence = given(fit)
    weights = evidence.weights
    prior = torch.cat([weights.priors[site].scale.reshape(-1) for site in weights.shapes]).numpy()
    expected = metrics.kl_normal(weights.mean.numpy(), weights.sd.numpy(), prior_sd=prior)
    np.testing.assert_allclose(CRITERIA["kl"].score(evidence).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "prior", [wiu.nn.Laplace(0.5), wiu.nn.ScaleMixtureNormal(1.0, 0.2, 0.3)], ids=["laplace", "mixture"]
)
def test_kl_from_another_prior_is_that_of_quadrature(prior):
    net = nn.Linear(3, 2)
    model = wiu.nn.BayesianNetwork(net, prior=prior, num_data=4)
    fit = wiu.fit(
        model, wiu.guides.AutoMeanField(model, init_scale=0.5), (torch.ones(4, 3), torch.tensor([0, 1, 0, 1])), epochs=0
    )
    _, evidence = given(fit)
    weights = evidence.weights

    def term(w, mean, sd):
        log_q = stats.norm.logpdf(w, mean, sd)
        at = torch.zeros(6, dtype=torch.float64)
        at[0] = w
        return np.exp(log_q) * (log_q - float(weights.log_prior(at)[0]))

    mean, sd = float(weights.mean[0]), float(weights.sd[0])
    expected, _ = integrate.quad(term, mean - 9 * sd, mean + 9 * sd, args=(mean, sd), points=[0.0, mean], limit=200)
    assert float(CRITERIA["kl"].score(evidence)[0]) == pytest.approx(expected, abs=0.02)


def linear_regression():
    """A linear model with known noise: data, exact posterior mean and covariance, and the evidence of any prior."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(12, 4)) @ rng.normal(size=(4, 4)), 0.7
    y = x @ np.array([1.0, 0.0, -0.4, 0.1]) + noise * rng.normal(size=12)
    covariance = np.linalg.inv(x.T @ x / noise**2 + np.eye(4))
    return x, y, noise, covariance @ x.T @ y / noise**2, covariance


def regression_weights():
    """The same as a posterior of the toolkit's."""
    x, y, noise, mean, covariance = linear_regression()
    data = (torch.tensor(x).float(), torch.tensor(y).float())
    net = nn.Linear(4, 1, bias=False)
    model = wiu.nn.BayesianNetwork(net, prior=wiu.nn.Normal(1.0), likelihood="normal", noise_scale=noise, num_data=12)
    guide = AutoMultivariateNormal(model)
    guide(*data)
    root = np.linalg.cholesky(covariance)
    with torch.no_grad():
        guide.loc.copy_(torch.tensor(mean).float())
        guide.scale = torch.tensor(np.diag(root)).float()
        guide.scale_tril = torch.tensor(root / np.diag(root)[:, None]).float()
    source = read_source(guide, model=model, data=data, num_samples=2, seed=0)
    return read_candidates(source, source.chains[0])


def test_model_reduction_is_the_difference_of_log_evidences_without_and_with_a_weight():
    x, y, noise, _, _ = linear_regression()

    def log_evidence(used):
        return stats.multivariate_normal.logpdf(y, np.zeros(12), noise**2 * np.eye(12) + x[:, used] @ x[:, used].T)

    expected = [log_evidence([j for j in range(4) if j != i]) - log_evidence(range(4)) for i in range(4)]
    weights = regression_weights()
    found = reduction(Evidence(weights, weights.sd, torch.Generator()))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_model_reduction_by_the_conditional_sd_is_that_of_a_model_whose_other_weights_are_known():
    x, y, noise, mean, _ = linear_regression()
    weights, spread = regression_weights(), noise**2 * np.eye(12)
    found = reduction(Evidence(weights, weights.sd_conditional, torch.Generator()))
    for i in range(4):
        rest = y - x @ mean + x[:, i] * mean[i]  # what this weight alone has to explain
        with_it = stats.multivariate_normal.logpdf(rest, np.zeros(12), spread + np.outer(x[:, i], x[:, i]))
        without = stats.multivariate_normal.logpdf(rest, np.zeros(12), spread)
        assert float(found[i]) == pytest.approx(without - with_it, abs=1e-4)


def test_brain_surgeon_of_a_kfac_posterior_is_half_the_squared_signal_to_noise():
    fit, _ = two_layers()
    source, evidence = given(fit)
    variance = surgeon_variance(source, evidence.weights, None, seed=0)
    score = CRITERIA["brain_surgeon"].score(Evidence(evidence.weights, evidence.sd, torch.Generator(), variance))
    torch.testing.assert_close(score, CRITERIA["signal_to_noise"].score(evidence).square() / 2)


def test_brain_surgeon_of_another_posterior_takes_the_kfac_curvature_at_its_mean():
    fit, data = two_layers()
    own = given(fit)[1].weights.sd.square()
    diagonal = wiu.fit(fit.model, wiu.guides.AutoDiagonalLaplace(fit.model), data, epochs=0, start=fit)
    source, evidence = given(diagonal)
    torch.testing.assert_close(surgeon_variance(source, evidence.weights, data, seed=0), own, rtol=1e-4, atol=0)


def test_random_scores_are_those_of_the_seed():
    fit, _ = two_layers(epochs=0)
    first, second = (CRITERIA["random"].score(given(fit)[1]) for _ in range(2))
    assert torch.equal(first, second)
    assert first.unique().numel() == first.numel()
