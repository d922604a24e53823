"""Mean-field: its KL and objective against Pyro's and torch's own."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from tests.guides.models import Hierarchical, PositiveWeights
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal, ScaleMixtureNormal
from wiu_pyro.testing import small_classifier

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def ready(model, *, seed: int = 0, data=(X, Y), **options) -> AutoMeanField:
    """Return a guide away from its start, so that no term of the KL is zero."""
    guide = AutoMeanField(model, **options)
    guide.setup(data)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        guide.loc.add_(0.3 * torch.randn(guide.loc.shape, generator=generator))
        guide.log_scale.add_(0.3 * torch.randn(guide.loc.shape, generator=generator))
    return guide


def reference_kl(guide: AutoMeanField, model: BayesianNetwork) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, place, _ in guide.sites():
        loc, scale = guide.loc[place].double(), guide.log_scale[place].double().exp()
        prior = model.prior_distributions()[name].base_dist
        total += torch.distributions.kl_divergence(
            torch.distributions.Normal(loc, scale),
            torch.distributions.Normal(prior.loc.reshape(-1).double(), prior.scale.reshape(-1).double()),
        ).sum()
    return total


@pytest.mark.parametrize("prior", [FanInNormal(), {"*.weight": Normal(0.3, loc=0.1), "*.bias": Normal(2.0)}])
def test_kl_is_that_of_torch(prior):
    model, data = small_classifier()
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model = BayesianNetwork(net, prior, num_data=24)
    guide = ready(model, data=data)
    assert guide.kl_divergence().item() == pytest.approx(reference_kl(guide, model).item(), rel=1e-5)


def test_gradients_written_out_are_those_of_autograd():
    model, data = small_classifier()
    guide = ready(model, data=data, estimator="reparam")
    torch.manual_seed(3)
    fast = torch.autograd.grad(guide.negative_elbo(*data, kl_weight=0.7), [guide.loc, guide.log_scale])
    torch.manual_seed(3)
    flat = guide.loc + guide.log_scale.exp() * torch.randn_like(guide.loc)
    loss = 0.7 * reference_kl(guide, model) - guide.log_likelihood(guide.unpack(flat), data)
    slow = torch.autograd.grad(loss, [guide.loc, guide.log_scale])
    for one, other in zip(fast, slow):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    stacked = torch.tensor(values, dtype=torch.float64)
    return stacked.mean().item(), stacked.std().item() / len(values) ** 0.5


def agree(guide, model, elbo, data, *, num: int = 300) -> None:
    with torch.no_grad(), poutine.block():
        torch.manual_seed(0)
        own, own_error = mean_and_error([guide.negative_elbo(*data).item() for _ in range(num)])
        pyros, error = mean_and_error([elbo.loss(model, guide, *data) for _ in range(num)])
    assert abs(own - pyros) < 5 * (own_error**2 + error**2) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize(
    "prior", [FanInNormal(), Laplace(0.5), ScaleMixtureNormal(1.0, 0.1), {"*.weight": Laplace(0.5), "*": Normal()}]
)
def test_objective_is_pyros_in_expectation(prior, elbo):
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    model = BayesianNetwork(net, prior, num_data=80)  # batches of 8: the likelihood is scaled by 10
    agree(ready(model), model, elbo(), (X, Y))


@pytest.mark.slow
def test_noise_scale_with_a_prior_enters_the_objective_as_in_pyro():
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5), num_data=8)
    data = (X, X[:, 0])
    agree(ready(model, data=data), model, Trace_ELBO(), data, num=600)


@pytest.mark.slow
@pytest.mark.parametrize("make", [Hierarchical, PositiveWeights])
def test_models_own_priors_enter_the_objective_as_in_pyro(make):
    model = make()
    agree(ready(model), model, Trace_ELBO(), (X, Y), num=600)


def test_prior_that_depends_on_another_site_is_not_taken_as_fixed():
    guide = ready(Hierarchical())
    assert not guide.fixed_priors
    assert guide.structure.dependent_priors == ("fc.weight",)


def test_sites_are_normals_whose_kl_pyro_takes_in_closed_form():
    """With one draw for the likelihood the KL has no noise: the analytic part of TraceMeanField_ELBO is exact."""
    model, data = small_classifier()
    guide = ready(model, data=data)
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(*data)
    assert {name for name in trace.stochastic_nodes if trace.nodes[name]["fn"].event_dim} == set(model.site_priors)
    assert all(type(trace.nodes[name]["fn"].base_dist).__name__ == "Normal" for name in model.site_priors)
    without_data = poutine.block(model, hide=["obs"])
    values = []
    with torch.no_grad(), poutine.block():
        for seed in (0, 1):
            torch.manual_seed(seed)
            values.append(TraceMeanField_ELBO().loss(without_data, guide, *data))
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert values[0] == pytest.approx(reference_kl(guide, model).item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_temperature_multiplies_the_kl(temperature):
    model, data = small_classifier()
    found = []
    for value in (1.0, temperature):
        guide = ready(model, data=data, temperature=value)
        torch.manual_seed(0)
        found.append(guide.negative_elbo(*data).item())
    kl = reference_kl(guide, model).item()
    assert found[1] - found[0] == pytest.approx((temperature - 1) * kl, rel=1e-4)


@pytest.mark.parametrize("make", [Hierarchical, PositiveWeights])
def test_kl_weight_and_temperature_multiply_the_kl_of_any_prior(make):
    """With the same draw −ELBO is linear in both: w T KL − E log p(y | w)."""

    def loss(kl_weight: float, temperature: float) -> float:
        torch.manual_seed(0)
        guide = ready(make(), temperature=temperature)
        torch.manual_seed(0)
        return guide.negative_elbo(X, Y, kl_weight=kl_weight).item()

    without, once = loss(0.0, 1.0), loss(1.0, 1.0)
    assert once != pytest.approx(without)
    assert loss(3.0, 1.0) == pytest.approx(without + 3 * (once - without), rel=1e-5)
    assert loss(1.0, 3.0) == pytest.approx(without + 3 * (once - without), rel=1e-5)


def test_kl_of_normal_and_other_priors_together_is_exact_for_the_normal_ones():
    model = BayesianNetwork(nn.Linear(4, 3), {"weight": Normal(0.7, loc=0.2), "bias": Laplace(0.5)}, num_data=8)
    guide = ready(model)
    with torch.no_grad():
        guide.log_scale.copy_(torch.linspace(-2, 0, 15))
        flat = guide.loc + 0.3
        q = torch.distributions.Normal(guide.loc, guide.log_scale.exp())
        weights = torch.distributions.Normal(guide.loc[:12], guide.log_scale[:12].exp())
        exact = torch.distributions.kl_divergence(weights, torch.distributions.Normal(0.2, 0.7)).sum()
        by_draw = q.log_prob(flat)[12:].sum() - torch.distributions.Laplace(0.0, 0.5).log_prob(flat[12:]).sum()
        torch.testing.assert_close(guide.kl_divergence(flat), exact + by_draw)


def test_start_is_the_networks_own_weights_with_a_small_scale():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model = BayesianNetwork(net, {"0.*": Normal(0.5), "*": Normal(2.0)}, num_data=8)
    guide = AutoMeanField(model, init_scale=0.01)
    guide.setup((X, Y))
    found = guide.unpack(guide.loc)
    assert all(torch.equal(found[name], value) for name, value in net.named_parameters())
    scale = guide.log_scale.exp()
    torch.testing.assert_close(scale, torch.cat([torch.full((25,), 0.005), torch.full((18,), 0.02)]))


def test_log_prob_is_the_density_of_the_draw():
    model, data = small_classifier()
    guide = ready(model, data=data)
    with torch.no_grad():
        draw = guide(*data)
        normal = torch.distributions.Normal(guide.loc.double(), guide.log_scale.double().exp())
        expected = normal.log_prob(torch.cat([draw[name].reshape(-1) for name, *_ in guide.sites()]).double()).sum()
    torch.testing.assert_close(guide.log_prob(draw).detach(), expected)


def test_unknown_estimator_is_refused():
    with pytest.raises(GuideError, match="Unknown estimator 'locl'. Did you mean 'local'"):
        AutoMeanField(small_classifier()[0], estimator="locl")


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_initial_scale_must_be_positive(value):
    with pytest.raises(GuideError, match="init_scale must be positive"):
        AutoMeanField(small_classifier()[0], init_scale=value)


def test_two_guides_of_one_class_do_not_share_their_parameters_under_svi():
    model, data = small_classifier()
    guides = [AutoMeanField(model), AutoMeanField(model)]
    for step, guide in enumerate(guides):
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1 * (step + 1)}), Trace_ELBO())
        svi.step(*data)
    names = set(pyro.get_param_store().keys())
    assert len([name for name in names if name.endswith(".loc")]) == 2
    assert not torch.equal(guides[0].loc, guides[1].loc)
