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
def test_bridge_gives_back_the_dirichlet_whose_laplace_approximation_in_the_softmax_basis_it_is_given(classes):
    """That approximation: mean log α_k less its mean, covariance of Hennig et al. (2012)."""
    generator = torch.Generator().manual_seed(classes)
    alpha = 0.2 + 5 * torch.rand(5, classes, generator=generator, dtype=torch.float64)
    mean = alpha.log() - alpha.log().mean(-1, keepdim=True)
    inverse = 1 / alpha
    off = (inverse[:, :, None] + inverse[:, None, :]) / classes - inverse.sum(-1)[:, None, None] / classes**2
    torch.testing.assert_close(dirichlet_concentration(mean, torch.diag_embed(inverse) - off), alpha)


@pytest.mark.parametrize("classes", [2, 4])
def test_bridge_of_any_gaussian_is_that_of_it_given_that_the_logits_sum_to_zero(classes):
    """In the basis of all logits but the last and of their sum, by the textbook's conditional Normal."""
    mean, covariance = gaussian(classes)
    basis = torch.cat([torch.eye(classes, dtype=torch.float64)[:-1], torch.ones(1, classes, dtype=torch.float64)])
    turned, spread = mean @ basis.mT, basis @ covariance @ basis.mT
    gain = spread[:, :-1, -1:] / spread[:, -1:, -1:]
    free = turned[:, :-1] - gain[..., 0] * turned[:, -1:]
    left = spread[:, :-1, :-1] - gain @ spread[:, -1:, :-1]
    back = torch.linalg.inv(basis)[:, :-1]
    expected = dirichlet_concentration(free @ back.mT, back @ left @ back.mT)
    torch.testing.assert_close(dirichlet_concentration(mean, covariance), expected, rtol=1e-6, atol=0)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_of_all_logits_changes_no_bridge_where_their_sum_is_known(dtype):
    """In float32 the variance of the sum is rounding, of either sign, by which nothing may be divided."""
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(200, 4, 50, generator=generator, dtype=dtype)
    jacobian = jacobian - jacobian.mean(1, keepdim=True)
    mean = torch.randn(200, 4, generator=generator, dtype=dtype)
    exact = jacobian.double() - jacobian.double().mean(1, keepdim=True)
    expected = dirichlet_concentration(mean.double(), exact @ exact.mT)
    found = dirichlet_concentration(mean + 5, jacobian @ jacobian.mT)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


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
