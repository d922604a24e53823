"""Exact moments and KL of Gaussian guides against dense algebra and torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical, PositiveWeights
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import (
    AutoDiagonalLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoMeanField,
    closed_form,
    init_to_network,
)
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal, Prior, ScaleMixtureNormal, inspect_model
from wiu_pyro.testing import small_classifier

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DENSE = {
    "full": autoguide.AutoMultivariateNormal,
    "low-rank": lambda model, **options: autoguide.AutoLowRankMultivariateNormal(model, rank=2, **options),
}


def pyro_fit(make, model, data, **options):
    guide = make(model, init_loc_fn=init_to_network(model), **options)
    return wiu.fit(model, guide, data, epochs=3, learning_rate=0.05)


def dense_posterior(guide) -> torch.distributions.MultivariateNormal:
    """Pyro's own density of the flat vector, as a dense Normal in float64."""
    with torch.no_grad():
        posterior = guide.get_posterior()
        return torch.distributions.MultivariateNormal(posterior.mean.double(), posterior.covariance_matrix.double())


def dense_prior(structure, sites) -> torch.distributions.MultivariateNormal:
    means = torch.cat([structure.priors[site].mean.reshape(-1) for site in sites]).double()
    variances = torch.cat([structure.priors[site].variance.reshape(-1) for site in sites]).double()
    return torch.distributions.MultivariateNormal(means, variances.diag())


def marginal(normal, index) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(normal.mean[index], normal.covariance_matrix[index][:, index])


@pytest.mark.parametrize("kind", DENSE)
def test_pyros_dense_guides_have_the_moments_and_kls_of_their_dense_normal(kind):
    model, data = small_classifier()
    fit = pyro_fit(DENSE[kind], model, data)
    closed = closed_form(fit.guide, fit.structure)
    normal = dense_posterior(fit.guide)
    sites = list(model.site_priors)
    torch.testing.assert_close(
        torch.cat([closed.sd[site].reshape(-1) for site in sites]).double(), normal.stddev, rtol=1e-4, atol=1e-6
    )
    conditional = torch.linalg.inv(normal.covariance_matrix).diagonal().rsqrt()
    torch.testing.assert_close(
        torch.cat([closed.sd_conditional[site].reshape(-1) for site in sites]).double(),
        conditional,
        rtol=1e-4,
        atol=1e-6,
    )
    index = {"0": torch.arange(25), "2": torch.arange(25, 43)}
    prior = dense_prior(fit.structure, sites)
    for layer, places in index.items():
        expected = torch.distributions.kl_divergence(marginal(normal, places), marginal(prior, places))
        assert closed.layer_kl[layer] == pytest.approx(expected.item(), rel=1e-4)
    assert closed.kl_total == pytest.approx(torch.distributions.kl_divergence(normal, prior).item(), rel=1e-4)
    assert not closed.factorised
    assert set(closed.layer_structure.values()) == {kind}


@pytest.mark.parametrize("kind", DENSE)
def test_site_that_is_no_layer_does_not_count_into_the_kl_of_the_only_layer(kind):
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5), num_data=12)
    fit = pyro_fit(DENSE[kind], model, (X, X[:, 0]))
    closed = closed_form(fit.guide, fit.structure)
    normal = marginal(dense_posterior(fit.guide), torch.arange(5))  # noise_scale comes last
    expected = torch.distributions.kl_divergence(normal, dense_prior(fit.structure, ["weight", "bias"])).item()
    assert closed.layer_kl["net"] == pytest.approx(expected, rel=1e-4)
    assert closed.kl_total == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "make", [AutoMeanField, autoguide.AutoNormal, autoguide.AutoDiagonalNormal], ids=lambda make: make.__name__
)
def test_mean_field_guides_have_the_kl_of_torch_and_no_marginal_apart_from_the_conditional(make):
    model, data = small_classifier()
    fit = pyro_fit(make, model, data)
    closed = closed_form(fit.guide, fit.structure)
    total = 0.0
    for layer in fit.structure.layers:
        kl = sum(
            torch.distributions.kl_divergence(
                torch.distributions.Normal(closed.mean[site].double(), closed.sd[site].double()),
                torch.distributions.Normal(
                    fit.structure.priors[site].mean.double(), fit.structure.priors[site].stddev.double()
                ),
            )
            .sum()
            .item()
            for site in layer.sites.values()
        )
        assert closed.layer_kl[layer.name] == pytest.approx(kl, rel=1e-5)
        total += kl
    assert closed.kl_total == pytest.approx(total, rel=1e-5)
    assert closed.factorised
    assert all(torch.equal(closed.sd[site], closed.sd_conditional[site]) for site in closed.sd)
    assert set(closed.layer_structure.values()) == {"mean-field"}


@pytest.mark.parametrize(
    ("make", "structure", "factorised"),
    [(AutoDiagonalLaplace, "diagonal", True), (AutoKFACLaplace, "kfac", False), (AutoFullLaplace, "full", False)],
)
def test_laplace_kl_is_that_of_the_dense_normal(make, structure, factorised):
    model, data = small_classifier()
    fit = wiu.fit(model, make(model), data, epochs=2)
    closed = closed_form(fit.guide, fit.structure)
    root = torch.zeros(43, 43)
    for block in fit.guide.blocks:
        eye = torch.eye(block.precision.numel)
        root[block.index[:, None], block.index] = block.precision.colour(eye).mT
    covariance = root.double() @ root.double().mT
    normal = torch.distributions.MultivariateNormal(fit.guide.loc.double(), covariance)
    prior = dense_prior(fit.structure, list(model.site_priors))
    assert closed.kl_total == pytest.approx(torch.distributions.kl_divergence(normal, prior).item(), rel=1e-4)
    for layer, places in {"0": torch.arange(25), "2": torch.arange(25, 43)}.items():
        expected = torch.distributions.kl_divergence(marginal(normal, places), marginal(prior, places)).item()
        assert closed.layer_kl[layer] == pytest.approx(expected, rel=1e-4)
    assert set(closed.layer_structure.values()) == {structure}
    assert closed.factorised == factorised
    if structure == "kfac":  # blocks are layers: nothing between them
        assert closed.kl_total == pytest.approx(sum(closed.layer_kl.values()))


def kl_from_laplace(mean: torch.Tensor, sd: torch.Tensor, scale: float) -> torch.Tensor:
    """KL(N(m, s²) ‖ Laplace(0, b)) = E|w| / b + log 2b − H(N): the mean of a folded Normal is known."""
    folded = sd * math.sqrt(2 / math.pi) * (-0.5 * (mean / sd).square()).exp()
    folded = folded + mean * torch.erf(mean / (sd * math.sqrt(2)))
    entropy = 0.5 * math.log(2 * math.pi * math.e) + sd.log()
    return (folded / scale + math.log(2 * scale) - entropy).sum()


def test_kl_from_a_laplace_prior_comes_by_draws_within_its_standard_error():
    model, data = small_classifier()
    model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), Laplace(0.5), num_data=24)
    guide = AutoMeanField(model, init_scale=0.7)
    fit = wiu.fit(model, guide, data, epochs=0)
    closed = closed_form(fit.guide, fit.structure)
    for layer in fit.structure.layers:
        expected = sum(
            kl_from_laplace(closed.mean[site].double(), closed.sd[site].double(), 0.5).item()
            for site in layer.sites.values()
        )
        error = closed.layer_kl_se[layer.name]
        assert 0 < error < 0.2 * expected
        assert abs(closed.layer_kl[layer.name] - expected) < 5 * error


def test_mixture_prior_has_a_kl_with_a_standard_error_too():
    model = BayesianNetwork(nn.Linear(4, 3), ScaleMixtureNormal(1.0, 0.1), num_data=12)
    fit = wiu.fit(model, AutoMeanField(model), (X, torch.zeros(12)), epochs=1)
    closed = closed_form(fit.guide, fit.structure)
    assert closed.layer_kl["net"] > 0
    assert closed.layer_kl_se["net"] > 0


@pytest.mark.parametrize("make", [AutoMeanField, autoguide.AutoNormal], ids=lambda make: make.__name__)
def test_layer_whose_prior_depends_on_another_site_has_no_kl_in_closed_form(make):
    model = Hierarchical()
    fit = wiu.fit(model, make(model), (X, torch.zeros(12)), epochs=1)
    closed = closed_form(fit.guide, fit.structure)
    assert math.isnan(closed.layer_kl["fc"])
    assert math.isnan(closed.kl_total)
    assert (closed.sd["fc.weight"] > 0).all()


def test_weight_with_a_bounded_prior_is_refused():
    model = PositiveWeights()
    fit = wiu.fit(model, AutoMeanField(model), (X, torch.zeros(12)), epochs=1)
    with pytest.raises(GuideError, match="the prior of 'fc.weight' has a bounded support"):
        closed_form(fit.guide, fit.structure)


@dataclass
class Shifted(Prior):
    """N(3, 0.5²), written as a transformation of a standard Normal."""

    known: bool = True

    def distribution(self, parameter, *, name, module):
        shift = torch.distributions.transforms.AffineTransform(3.0, 0.5)
        inner = dist.Normal(torch.zeros_like(parameter), torch.ones_like(parameter))
        known = {"mean": torch.full_like(parameter, 3.0), "variance": torch.full_like(parameter, 0.25)}
        kind = type("ShiftedNormal", (dist.TransformedDistribution,), known if self.known else {})
        return kind(inner, [shift]).to_event(parameter.dim())

    def describe(self):
        return "3 + N(0, 0.25)"


def test_transformed_normal_prior_is_not_taken_for_the_normal_inside_it():
    found = []
    for prior in (Shifted(), Normal(0.5, loc=3.0)):
        torch.manual_seed(0)
        model = BayesianNetwork(nn.Linear(4, 3), prior, num_data=12)
        guide = AutoMeanField(model)
        guide.setup((X, torch.zeros(12)))
        with torch.no_grad():
            guide.log_scale.fill_(math.log(0.2))
        found.append(closed_form(guide, guide.structure))
    by_draws, exact = found
    assert abs(by_draws.layer_kl["net"] - exact.layer_kl["net"]) < 5 * by_draws.layer_kl_se["net"]


def test_prior_without_a_standard_deviation_is_refused():
    model = BayesianNetwork(nn.Linear(4, 3), Shifted(known=False), num_data=12)
    with pytest.raises(PriorError, match="the ShiftedNormal of 'weight' has none"):
        AutoMeanField(model).setup((X, torch.zeros(12)))


def test_guide_that_is_no_gaussian_has_none():
    model, data = small_classifier()
    guide = autoguide.AutoDelta(model)
    fit = wiu.fit(model, guide, data, epochs=1)
    assert closed_form(fit.guide, fit.structure) is None


def test_pyros_laplace_before_its_hessian_is_refused():
    model, data = small_classifier()
    guide = autoguide.AutoLaplaceApproximation(model)
    with pytest.raises(GuideError, match="AutoLaplaceApproximation is a point estimate until"):
        closed_form(guide, inspect_model(model, *data))
