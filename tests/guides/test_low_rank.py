"""Low rank plus diagonal against dense algebra, draws, and a posterior that is known."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoLowRank, closed_form
from wiu_pyro.guides.low_rank import _default_rank
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier


def ready(model, data, *, seed: int = 0, **options) -> AutoLowRank:
    """Return a guide away from its start, so that no term of the KL is zero."""
    guide = AutoLowRank(model, **options)
    guide.setup(data)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return guide


def dense(guide: AutoLowRank) -> torch.distributions.MultivariateNormal:
    scale = guide.log_scale.detach().double().exp()
    factor = guide.factor.detach().double() * scale[:, None]
    return torch.distributions.MultivariateNormal(
        guide.loc.detach().double(), factor @ factor.mT + scale.square().diag()
    )


def prior_of(guide: AutoLowRank) -> torch.distributions.Distribution:
    prior = guide.flat_prior()
    return torch.distributions.MultivariateNormal(prior.loc.double(), prior.scale.double().square().diag())


def exact(problem) -> AutoLowRank:
    """Return the guide put at a linear-Gaussian network's posterior, with the rank that this takes."""
    guide = AutoLowRank(problem.model, rank=len(problem.covariance) - 1)
    guide.setup(problem.data)
    values, vectors = torch.linalg.eigh(problem.covariance)
    scale = values[0].sqrt()  # Σ = s² (I + U U') with s² the smallest eigenvalue
    with torch.no_grad():
        guide.loc.copy_(guide.pack(problem.mean))
        guide.log_scale.fill_(scale.log())
        guide.factor.copy_(vectors[:, 1:] * (values[1:] / values[0] - 1).sqrt())
    return guide


@pytest.mark.parametrize("prior", [wiu.nn.FanInNormal(), {"*.weight": Normal(0.3, loc=0.1), "*.bias": Normal(2.0)}])
def test_kl_is_that_of_the_dense_gaussian(prior):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    guide = ready(BayesianNetwork(net, prior, num_data=24), small_classifier()[1], rank=3)
    expected = torch.distributions.kl_divergence(dense(guide), prior_of(guide))
    assert guide.kl_divergence().item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_is_the_mean_of_log_q_less_log_prior_over_draws():
    model, data = small_classifier()
    guide = ready(model, data, rank=3)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = guide.get_posterior().sample((4000,))
        terms = dense(guide).log_prob(draws.double()) - prior_of(guide).log_prob(draws.double())
    assert abs(terms.mean() - guide.kl_divergence()) < 4 * terms.std() / len(terms) ** 0.5


def test_log_prob_and_moments_are_those_of_the_dense_gaussian():
    model, data = small_classifier()
    guide = ready(model, data, rank=3)
    reference = dense(guide)
    with torch.no_grad():
        draw = guide(*data)
        torch.testing.assert_close(guide.log_prob(draw), reference.log_prob(guide.pack(draw).double()))
    found = closed_form(guide, guide.structure)
    covariance = reference.covariance_matrix
    conditional = torch.linalg.inv(covariance).diagonal().rsqrt()
    for name, place, shape in guide.sites():
        torch.testing.assert_close(found.sd[name], covariance.diagonal()[place].sqrt().view(shape).float())
        torch.testing.assert_close(
            found.sd_conditional[name], conditional[place].view(shape).float(), rtol=1e-4, atol=0
        )
    assert set(found.layer_structure.values()) == {"low-rank"}
    assert found.kl_total == pytest.approx(guide.kl_divergence().item(), rel=1e-4)


@pytest.mark.parametrize("estimator", ["local", "reparam"])
def test_at_a_posterior_of_low_rank_the_kl_is_its_own_and_elbo_the_evidence(estimator):
    problem = linear_gaussian()
    guide = exact(problem)
    guide.estimator = estimator
    assert guide.kl_divergence().item() == pytest.approx(problem.kl, rel=1e-9)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = torch.stack([guide.negative_elbo(*problem.data) for _ in range(400)])
    assert abs(losses.mean() + problem.log_evidence) < 4 * losses.std() / len(losses) ** 0.5


def test_at_a_posterior_of_low_rank_the_gradient_is_zero_in_expectation():
    problem = linear_gaussian()
    guide = exact(problem)
    torch.manual_seed(0)
    draws = []
    for _ in range(400):
        grads = torch.autograd.grad(guide.negative_elbo(*problem.data), [guide.loc, guide.log_scale, guide.factor])
        draws.append(torch.cat([grad.reshape(-1) for grad in grads]))
    found = torch.stack(draws)
    assert (found.mean(0).abs() / (found.std(0) / len(found) ** 0.5 + 1e-9)).max() < 4.5


@pytest.mark.training
@pytest.mark.slow
def test_training_finds_a_linear_gaussian_posterior():
    problem = linear_gaussian(dtype=torch.float32)
    guide = AutoLowRank(problem.model, rank=7)
    wiu.fit(problem.model, guide, problem.data, epochs=4000, batch_size=30, learning_rate=0.01)
    covariance = dense(guide).covariance_matrix
    sd, true = covariance.diagonal().sqrt(), problem.covariance.diagonal().sqrt()
    torch.testing.assert_close(sd, true, rtol=0.1, atol=0)
    torch.testing.assert_close(covariance / sd.outer(sd), problem.covariance / true.outer(true), rtol=0, atol=0.15)
    assert guide.kl_divergence().item() == pytest.approx(problem.kl, rel=0.02)


@pytest.mark.slow
def test_prior_that_is_not_normal_enters_by_draws():
    net = nn.Linear(4, 3)
    data = small_classifier()[1]
    guide = ready(BayesianNetwork(net, {"weight": Laplace(0.5), "bias": Normal(0.7)}, num_data=24), data, rank=2)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([guide.kl_divergence() for _ in range(500)])
        draws = guide.get_posterior().sample((4000,))
        log_prior = torch.stack([guide.log_prior(draw) for draw in draws])
        terms = dense(guide).log_prob(draws.double()) - log_prior
    error = (found.var() / len(found) + terms.var() / len(terms)) ** 0.5
    assert abs(found.mean() - terms.mean()) < 4 * error


@pytest.mark.slow
def test_pyros_svi_lowers_the_loss():
    model, data = small_classifier()
    guide = AutoLowRank(model, rank=2)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(*data) for _ in range(300)]
    assert sum(losses[-50:]) < sum(losses[:50])


@pytest.mark.parametrize(("num_weights", "rank"), [(5, 2), (50, 7), (478_410, 10), (4_000_000, 4), (138_000_000, 1)])
def test_rank_is_bounded_by_time_and_memory(num_weights, rank):
    assert _default_rank(num_weights) == rank


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, but is 0"),
        ({"rank": 2.5}, "rank must be a whole number of at least 1, but is 2.5"),
        ({"init_scale": 0.0}, "init_scale must be positive, but is 0.0"),
        ({"estimator": "locl"}, "Unknown estimator 'locl'. Did you mean 'local'"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(GuideError, match=message):
        AutoLowRank(small_classifier()[0], **options)


def test_prior_that_depends_on_another_site_is_refused():
    data = small_classifier()[1]
    guide = AutoLowRank(Hierarchical())
    guide.setup(data)
    with pytest.raises(PriorError, match="prior of 'fc.weight' depends on another site.*use AutoMeanField"):
        guide.negative_elbo(*data)
