"""The Gaussian guide of a Laplace approximation: its covariance, its KL, and the same posterior under another prior."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

import wiu_pyro as wiu
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import (
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoLaplace,
    closed_form,
)
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Normal
from wiu_pyro.testing.toys import linear_gaussian, small_classifier

GUIDES = {
    "diagonal": AutoDiagonalLaplace,
    "kfac": AutoKFACLaplace,
    "ekfac": AutoEKFACLaplace,
    "full": AutoFullLaplace,
}


def posterior_of(name: str, **options):
    model, data = small_classifier()
    return wiu.fit(model, GUIDES[name](model, **options), data, epochs=0), data


def network(prior) -> BayesianNetwork:
    """A network of the same layers under another prior."""
    return BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), prior, num_data=24)


def dense(posterior) -> torch.Tensor:
    """The covariance of all weights, entry by entry, from the guide's own square root of it."""
    blocks = torch.zeros(posterior.latent_dim, posterior.latent_dim, dtype=torch.float64)
    for block in posterior.blocks:
        root = block.precision.colour(torch.eye(block.precision.numel)).double()
        blocks[block.index[:, None], block.index] = root.mT @ root
    return blocks


@pytest.fixture(params=GUIDES)
def fitted(request):
    return posterior_of(request.param)[0].guide


def test_covariance_by_site_is_that_of_the_joint_gaussian(fitted):
    places = {name: place for name, place, _ in fitted.sites()}
    covariance = dense(fitted)
    rows, columns = torch.tensor([3, 0]), torch.tensor([4, 1, 2])
    for first in places:
        for second in ("0.weight", "2.weight"):
            found = fitted.covariance((first, rows[:2] % 3), (second, columns))
            expected = covariance[places[first]][rows % 3][:, places[second]][:, columns]
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_covariance_of_all_of_two_sites_has_one_row_for_each_weight(fitted):
    found = fitted.covariance(("0.weight", None), ("0.bias", None))
    assert found.shape == (20, 5)
    variances = fitted.covariance(("2.bias", None), ("2.bias", None)).diagonal()
    place = next(place for name, place, _ in fitted.sites() if name == "2.bias")
    torch.testing.assert_close(variances, fitted.get_posterior().variance[place], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("structure", ["diagonal", "kfac", "ekfac"])
def test_weights_of_independent_blocks_have_covariance_zero(structure):
    posterior = posterior_of(structure)[0].guide
    assert (posterior.covariance(("0.weight", None), ("2.weight", None)) == 0).all()


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (("fc9.weight", [0]), r"'fc9.weight' has none. Did you mean '2.weight'"),
        (("0.bias", [5]), r"run from 0 to 4, but 5 … 5"),
        (("0.bias", [-1]), "run from 0 to 4"),
    ],
)
def test_covariance_of_weights_that_are_not_there_is_refused(first, message):
    posterior = posterior_of("kfac")[0].guide
    with pytest.raises(GuideError, match=message):
        posterior.covariance(first, ("0.bias", None))


def test_entropy_and_kl_are_those_of_torch(fitted):
    covariance = dense(fitted)
    own = torch.distributions.MultivariateNormal(fitted.loc.double(), covariance)
    prior = fitted.flat_prior()
    theirs = torch.distributions.MultivariateNormal(prior.loc.double(), prior.scale.double().square().diag())
    torch.testing.assert_close(fitted.entropy(), own.entropy(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fitted.kl_to_prior(), kl_divergence(own, theirs), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fitted.get_posterior().log_det(), -torch.logdet(covariance), rtol=1e-5, atol=1e-4)


def test_kl_is_exact_in_the_linear_gaussian_problem():
    problem = linear_gaussian()
    fit = wiu.fit(problem.model, AutoFullLaplace(problem.model), problem.data, epochs=0, start=problem.mean)
    assert fit.guide.kl_to_prior().item() == pytest.approx(problem.kl)


@pytest.mark.parametrize("name", GUIDES)
def test_another_prior_gives_the_posterior_that_a_model_with_that_prior_has(name):
    """Against a fresh pass over the data of a network with that prior, at the same weights."""
    fit, data = posterior_of(name)
    found = fit.guide.with_prior(0.4)
    scaled = {"*.weight": FanInNormal(gain=2 * 0.4**2), "*.bias": Normal(0.4)}
    model = network(scaled)
    expected = wiu.fit(model, GUIDES[name](model), data, epochs=0, start=fit).guide
    torch.testing.assert_close(dense(found), dense(expected), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.kl_to_prior(), expected.kl_to_prior(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.flat_prior().scale, expected.flat_prior().scale)


@pytest.mark.parametrize("name", ["diagonal", "kfac", "full"])
def test_prior_scales_may_differ_between_layers_and_sites(name):
    fit, data = posterior_of(name)
    found = fit.guide.with_prior({"0": 0.5, "2.bias": 3.0})
    prior = {
        "0.weight": FanInNormal(gain=2 * 0.5**2),
        "0.bias": Normal(0.5),
        "2.weight": FanInNormal(),
        "2.bias": Normal(3.0),
    }
    model = network(prior)
    expected = wiu.fit(model, GUIDES[name](model), data, epochs=0, start=fit).guide
    torch.testing.assert_close(dense(found), dense(expected), rtol=1e-3, atol=1e-6)


def test_eigenvalue_corrected_factors_take_a_scale_for_a_layer_but_not_for_its_bias_alone():
    posterior = posterior_of("ekfac")[0].guide
    assert posterior.with_prior({"0": 0.5}).prior_record.changed
    with pytest.raises(PriorError, match="Scale the whole layer"):
        posterior.with_prior({"0.bias": 0.5})


def test_scales_are_relative_to_the_models_prior_whatever_came_between(fitted):
    there = fitted.with_prior({"0": 5.0}).with_prior(0.3)
    torch.testing.assert_close(there.kl_to_prior(), fitted.with_prior(0.3).kl_to_prior(), rtol=1e-5, atol=1e-4)
    back = there.with_prior(1.0)
    torch.testing.assert_close(back.get_posterior().variance, fitted.get_posterior().variance, rtol=1e-4, atol=1e-7)
    assert not back.prior_record.changed
    assert back.prior_record.previous.scales["0.weight"] == 0.3
    assert back.prior_record.previous.previous.scales["0.weight"] == 5.0


def test_the_guide_it_was_made_from_keeps_its_prior(fitted):
    before = fitted.flat_prior().scale.clone(), fitted.get_posterior().variance.clone(), fitted.kl_to_prior()
    fitted.with_prior(0.1)
    torch.testing.assert_close(fitted.flat_prior().scale, before[0])
    torch.testing.assert_close(fitted.get_posterior().variance, before[1])
    assert fitted.kl_to_prior() == before[2]
    assert fitted.prior_scales == {}


def test_a_guide_under_another_prior_is_still_a_pyro_guide(fitted):
    import pyro
    from pyro import poutine

    other = fitted.with_prior(0.1)
    data = small_classifier()[1]
    pyro.set_rng_seed(0)
    trace = poutine.trace(other).get_trace(*data)
    assert {"0.weight", "2.bias"} <= set(trace.nodes)
    draws = other.get_posterior().rsample((4000,))
    variance = other.get_posterior().variance
    # the variance of a sample variance of a Normal is 2 / (n - 1) of its square
    assert ((draws.var(0) / variance - 1).abs() < 5 * (2 / 3999) ** 0.5).all()


def test_exact_moments_and_kl_refer_to_the_prior_in_force():
    posterior = posterior_of("kfac")[0].guide.with_prior({"2": 0.2})
    closed = closed_form(posterior, posterior.structure)
    assert closed.kl_total == pytest.approx(posterior.kl_to_prior().item(), rel=1e-5)
    assert posterior.structure.priors["2.bias"].base_dist.scale.unique().item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "must be positive, but that for '[*]' is 0"),
        ({"0": float("nan")}, "must be positive"),
        ({"fc*": 2.0}, "'fc[*]' matches none. Known: 0, 0.bias"),
    ],
)
def test_scales_that_make_no_prior_are_refused(scale, message):
    posterior = posterior_of("kfac")[0].guide
    with pytest.raises(PriorError, match=message):
        posterior.with_prior(scale)


def test_layers_at_their_point_estimate_have_no_prior_scale():
    model, data = small_classifier()
    posterior = wiu.fit(model, AutoLaplace(model, structure={"2": "kfac"}), data, epochs=0).guide
    assert posterior.with_prior(0.5).prior_scales == {"2.weight": 0.5, "2.bias": 0.5}
    with pytest.raises(PriorError, match="matches none"):
        posterior.with_prior({"0": 0.5})


def test_a_draw_leaves_the_mean_alone():
    model = wiu.nn.BayesianNetwork(torch.nn.Linear(3, 2), num_data=6).eval()
    posterior = wiu.guides.AutoKFACLaplace(model).laplace_approximation(torch.randn(6, 3), torch.arange(6) % 2)
    mean = posterior.loc.clone()
    draw = posterior.get_posterior().rsample()
    assert torch.equal(posterior.loc, mean)
    assert not torch.equal(draw, mean)
