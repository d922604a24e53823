"""Closed forms for class probabilities: against the definition they come from, large samples, and their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoKFACLaplace, AutoMeanField
from wiu_pyro.infer import functional_distribution, predict
from wiu_pyro.infer.link import beta_concentration, dirichlet_concentration, dirichlet_entropy, moderated
from wiu_pyro.nn import BayesianNetwork, as_batches
from wiu_pyro.testing import linear_gaussian, small_classifier


def gaussian(classes: int, *, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    mean = 2 * torch.randn(5, classes, generator=generator, dtype=torch.float64)
    root = torch.randn(5, classes, classes, generator=generator, dtype=torch.float64)
    return mean, scale * root @ root.mT


@pytest.fixture(scope="module")
def classifier():
    model, data = small_classifier()
    return wiu.fit(model, AutoKFACLaplace(model), data, epochs=1), data


@pytest.fixture(scope="module")
def binary():
    torch.manual_seed(0)
    x = torch.randn(20, 4)
    y = (x[:, :2] > 0).float()
    model = BayesianNetwork(nn.Linear(4, 2), likelihood="bernoulli")
    return wiu.fit(model, AutoKFACLaplace(model), (x, y), epochs=1), (x, y)


def test_probit_is_within_two_hundredths_of_the_integral_over_one_logit():
    """The worst error of MacKay's approximation, against quadrature of E sigmoid(f)."""
    mean, variance = torch.meshgrid(torch.linspace(-6, 6, 25), torch.tensor([0.1, 1.0, 4.0, 25.0]), indexing="ij")
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    draws = mean.numpy()[..., None] + variance.sqrt().numpy()[..., None] * nodes
    exact = (1 / (1 + np.exp(-draws)) * weights).sum(-1) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(torch.sigmoid(moderated(mean, variance)), exact, atol=0.02)


def test_without_variance_the_probit_approximation_is_the_point_estimate():
    mean, covariance = gaussian(4, scale=1e-9)
    torch.testing.assert_close(moderated(mean, covariance.diagonal(dim1=1, dim2=2)), mean)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_bridge_is_the_dirichlet_whose_laplace_approximation_in_the_softmax_basis_has_these_moments(classes):
    """MacKay's approximation of a Dirichlet: mean log α_k − mean log α, variances of Hennig et al. (2012), eq. 18."""
    mean, covariance = gaussian(classes)
    ones = torch.ones(classes, dtype=torch.float64)
    total = covariance.sum((1, 2))
    mean = mean - (covariance @ ones) * (mean.sum(-1) / total)[:, None]
    covariance = covariance - torch.einsum("ni,nj->nij", covariance @ ones, covariance @ ones) / total[:, None, None]
    alpha = dirichlet_concentration(mean, covariance)
    log_alpha = alpha.log()
    found = (1 - 2 / classes) / alpha + (1 / alpha).sum(-1, keepdim=True) / classes**2
    if classes == 2:
        torch.testing.assert_close(log_alpha - log_alpha.mean(-1, keepdim=True), mean)
        torch.testing.assert_close(found, covariance.diagonal(dim1=1, dim2=2))
    # equal variances are inverted exactly, as the Dirichlet has them at equal parameters
    even = 0.3 * (torch.eye(classes, dtype=torch.float64) - 1 / classes).expand(5, -1, -1)
    alpha = dirichlet_concentration(torch.zeros(5, classes, dtype=torch.float64), even)
    expected = (1 - 1 / classes) / alpha  # (1 − 2/K) / α + K / (K² α)
    torch.testing.assert_close(expected, even.diagonal(dim1=1, dim2=2))


def test_beta_is_the_bridge_between_two_centred_logits():
    mean, variance = torch.tensor([[0.7, -3.0]]).double(), torch.tensor([[0.5, 4.0]]).double()
    two = torch.stack([mean[0], -mean[0]], -1) / 2
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    expected = dirichlet_concentration(two, variance[0, :, None, None] / 4 * signs)
    torch.testing.assert_close(beta_concentration(mean, variance)[0], expected)
    found = beta_concentration(mean, variance)
    torch.testing.assert_close(found[..., 0] / found.sum(-1), torch.sigmoid(mean))


def test_entropy_of_a_dirichlet_is_that_of_a_large_sample():
    alpha = torch.tensor([0.5, 2.0, 4.0]).double()
    torch.manual_seed(0)
    draws = torch.distributions.Dirichlet(alpha).sample((40_000,))
    entropies = torch.special.entr(draws).sum(-1)
    assert abs(dirichlet_entropy(alpha) - entropies.mean()) < 4 * entropies.std() / 200


def test_shift_of_all_logits_changes_no_bridge_where_their_sum_is_known():
    mean, covariance = gaussian(3)
    centring = torch.eye(3, dtype=torch.float64) - 1 / 3
    covariance = centring @ covariance @ centring
    torch.testing.assert_close(
        dirichlet_concentration(mean + 5, covariance), dirichlet_concentration(mean, covariance), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("link", ["probit", "bridge", "bridge_norm"])
@pytest.mark.parametrize("case", ["classifier", "binary"])
def test_closed_form_predictions_are_probabilities_with_what_the_link_knows(link, case, request):
    fit, data = request.getfixturevalue(case)
    found = predict(fit, data, link=link)
    part = next(functional_distribution(fit.model, fit.guide, as_batches(data)))
    assert (found.kind, found.link, found.num_samples, found.log_likelihood) == ("linearised", link, 0, None)
    assert ((found.mean > 0) & (found.mean < 1)).all()
    np.testing.assert_allclose(found.functional_variance, part.covariance.diagonal(dim1=1, dim2=2), rtol=1e-4)
    if case == "classifier":
        np.testing.assert_allclose(found.mean.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(found.predictive_entropy, -(found.mean * np.log(found.mean)).sum(1), rtol=1e-4)
        assert (found.concentration is None) == (link == "probit")
    if link == "probit":
        assert found.mutual_information is None
        assert (found.lower is None) == (case == "classifier")
    else:
        np.testing.assert_allclose(
            found.predictive_entropy, found.expected_entropy + found.mutual_information, rtol=1e-5
        )
        assert (found.mutual_information > 0).all()
        assert ((found.lower <= found.mean) & (found.mean <= found.upper)).all()


def test_interval_of_one_logit_has_its_probability_in_closed_form(binary):
    fit, data = binary
    exact, drawn = predict(fit, data, link="probit"), predict(fit, data, num_samples=4000)
    # a quantile of 4,000 draws lies between those at its level ± five standard errors of a proportion
    off = 5 * (0.025 * 0.975 / 4000) ** 0.5
    part = next(functional_distribution(fit.model, fit.guide, as_batches(data)))
    sd = part.covariance.diagonal(dim1=1, dim2=2).sqrt()
    standard = torch.distributions.Normal(0.0, 1.0)
    for level, found in ((0.025, drawn.lower), (0.975, drawn.upper)):
        below, above = (
            torch.sigmoid(part.mean + sd * standard.icdf(torch.tensor(level + sign * off))).numpy() for sign in (-1, 1)
        )
        assert ((below <= found) & (found <= above)).all()
    np.testing.assert_allclose(exact.upper, torch.sigmoid(part.mean + 1.959964 * sd), rtol=1e-5)
    np.testing.assert_allclose(exact.lower, torch.sigmoid(part.mean - 1.959964 * sd), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"link": "probits"}, "Unknown link 'probits'. Did you mean 'probit'"),
        ({"link": "bridge", "kind": "sampled"}, 'link="bridge" is for the Gaussian logits of a linearised network'),
    ],
)
def test_link_that_makes_no_sense_is_refused(options, message, classifier):
    fit, data = classifier
    with pytest.raises(GuideError, match=message):
        predict(fit, data, **options)


def test_link_of_a_mean_field_guide_is_refused():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoMeanField(model), data, epochs=0)
    with pytest.raises(GuideError, match='link="probit" is for the Gaussian logits'):
        predict(fit, data, link="probit")


def test_link_of_a_normal_likelihood_is_refused():
    problem = linear_gaussian()
    fit = wiu.fit(problem.model, AutoKFACLaplace(problem.model), problem.data, epochs=0, start=problem.mean)
    with pytest.raises(GuideError, match="the likelihood is normal: its linearised predictive has a closed form"):
        predict(fit, problem.data, link="probit")
