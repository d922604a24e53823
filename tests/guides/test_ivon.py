"""Natural-gradient inference: its figures against torch's own, its optimum where that is known, its state."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoIVON, closed_form
from wiu_pyro.guides.ivon_update import Target, _move_hessian
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier

PRIORS = {
    "one": {"*.weight": Normal(0.3, loc=0.1), "*.bias": Normal(2.0)},
    "other": {"0.*": Laplace(0.5), "*": Normal()},
}


def network(prior=None) -> BayesianNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return BayesianNetwork(net, PRIORS["one"] if prior is None else prior, num_data=24)


def ready(model, data, **options) -> AutoIVON:
    """Return a guide away from its start."""
    guide = AutoIVON(model, **options)
    guide.setup(data)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        guide.loc.add_(0.3 * torch.randn(guide.loc.shape, generator=generator))
        guide.hess.mul_(torch.rand(guide.loc.shape, generator=generator) + 0.5)
    return guide


def train(guide: AutoIVON, optimiser, data, *, steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        guide.negative_elbo(*data).backward()
        optimiser.step()


def posterior(guide: AutoIVON) -> torch.distributions.Normal:
    """Return N(m, 1 / (λ h + s₀⁻²)), λ = num_data / temperature, where the prior is Normal; 1 / (λ h) elsewhere."""
    prior = guide.flat_prior()
    own = torch.where(prior.normal, prior.scale**-2, 0.0)
    precision = guide.structure.num_data / guide.temperature * guide.hess + own
    return torch.distributions.Normal(guide.loc.detach().double(), precision.double().rsqrt())


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_sds_are_those_of_hessian_and_prior_and_the_kl_is_that_of_torch(temperature):
    guide = ready(network(), small_classifier()[1], temperature=temperature)
    reference, prior = posterior(guide), guide.flat_prior()
    found = closed_form(guide, guide.structure)
    sd = torch.cat([found.sd[name].reshape(-1) for name, *_ in guide.sites()])
    torch.testing.assert_close(sd.double(), reference.scale, rtol=1e-5, atol=0)
    assert found.factorised
    expected = torch.distributions.kl_divergence(
        reference, torch.distributions.Normal(prior.loc.double(), prior.scale.double())
    ).sum()
    assert guide.kl_divergence().item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.kl_total == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.slow
def test_kl_from_other_priors_is_the_mean_over_draws():
    guide = ready(network(PRIORS["other"]), small_classifier()[1])
    reference = posterior(guide)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([guide.kl_divergence() for _ in range(500)])
        draws = reference.sample((4000,))
        log_prior = torch.stack([guide.log_prior(draw.float()) for draw in draws])
        terms = reference.log_prob(draws).sum(1) - log_prior
    error = (found.var() / len(found) + terms.var() / len(terms)) ** 0.5
    assert abs(found.mean() - terms.mean()) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_loss_is_minus_elbo(prior):
    data = small_classifier()[1]
    guide = ready(network(PRIORS[prior]), data, temperature=0.5, num_samples=2)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([guide.negative_elbo(*data, kl_weight=0.8) for _ in range(400)])
        guide.temperature, terms = 0.4, []  # the sds follow from the KL's weight too
        reference = posterior(guide)
        for draw in reference.sample((800,)):
            log_q = reference.log_prob(draw).sum()
            likelihood = guide.log_likelihood(guide.unpack(draw.float()), data)
            terms.append(0.4 * (log_q - guide.log_prior(draw.float())) - likelihood)
    terms = torch.stack(terms)
    error = (found.var() / len(found) + terms.var() / len(terms)) ** 0.5
    assert abs(found.mean() - terms.mean()) < 4 * error


def test_log_prob_is_the_density_of_the_draw():
    guide = ready(network(), small_classifier()[1])
    with torch.no_grad():
        draw = guide(*small_classifier()[1])
        expected = posterior(guide).log_prob(guide.pack(draw).double()).sum()
        torch.testing.assert_close(guide.log_prob(draw), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("options", "start"), [({}, 0.3), ({"hess_init": 2.0}, None)])
def test_start_is_the_networks_own_weights_with_the_scale_asked_for(options, start):
    model = network()
    guide = AutoIVON(model, **options)
    guide.setup(small_classifier()[1])
    assert all(torch.equal(guide.unpack(guide.loc)[name], model.net.get_buffer(name)) for name, *_ in guide.sites())
    prior = guide.flat_prior()
    expected = start * prior.scale if start else (24 * 2.0 + prior.scale**-2).rsqrt()
    torch.testing.assert_close(guide._loc_scale()[1], expected)


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_training_finds_mean_and_conditional_sds_of_a_linear_gaussian_network(temperature):
    """The best independent Normals have the posterior's mean and, of T times the KL, √T of its conditional sds."""
    problem = linear_gaussian(dtype=torch.float32)
    guide = AutoIVON(problem.model, betas=(0.9, 0.99), num_samples=2, temperature=temperature)
    wiu.fit(problem.model, guide, problem.data, epochs=1000, batch_size=30)
    prior = torch.cat([torch.full((6,), 0.7), torch.full((2,), 1.5)]).double()
    curvature = torch.linalg.inv(problem.covariance).diagonal() - prior**-2
    precision = curvature / temperature + prior**-2
    loc, scale = guide._loc_scale()
    torch.testing.assert_close(scale.double(), precision.rsqrt(), rtol=0.15, atol=0)
    if temperature == 1.0:
        mean = guide.pack({name: value.float() for name, value in problem.mean.items()})
        assert ((loc - mean) / scale).abs().max() < 0.3  # the last steps are small, but each has its noise


@pytest.mark.slow
def test_weights_the_data_do_not_touch_go_back_to_their_prior():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(24, 2), torch.zeros(24, 2)], 1)
    data = (x, (x[:, 0] > 0).long())
    model = BayesianNetwork(nn.Linear(4, 2), {"weight": Normal(0.5, loc=0.2), "bias": Normal()}, num_data=24)
    guide = AutoIVON(model, betas=(0.9, 0.99))
    guide.setup(data)
    train(guide, guide.make_optimiser(list(guide.parameters()), 0.05), data, steps=900)
    dead = guide.unpack(guide.loc)["weight"][:, 2:], guide.unpack(guide._loc_scale()[1])["weight"][:, 2:]
    torch.testing.assert_close(dead[0], torch.full((2, 2), 0.2), rtol=0.02, atol=0)
    torch.testing.assert_close(dead[1], torch.full((2, 2), 0.5), rtol=0.02, atol=0)


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_precision_stays_positive_whatever_the_noise(share):
    guide = ready(network(), small_classifier()[1])
    target = guide.target()
    hess = guide.hess.clone()
    before = hess + target.decay
    _move_hessian(hess, torch.linspace(-1e3, 1e3, len(hess)), target=target, share=share)
    assert ((hess + target.decay) / before).min() >= 0.499


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_step_of_the_hessian_is_that_of_the_papers_algorithm(temperature):
    """Shen et al. (2024), algorithm 1, lines 3, 5 and 7: from the gradient of the mean loss."""
    generator = torch.Generator().manual_seed(0)
    prior = ready(network(), small_classifier()[1]).flat_prior()
    target = Target.of(prior, 24, temperature)
    size, share = len(prior.loc), 0.3  # 1 - beta_2
    hess = torch.rand(size, generator=generator) + 0.5
    gradient, noise = (torch.randn(size, generator=generator) for _ in range(2))
    variance = 1 / (24 / temperature * (hess + target.decay))
    drawn = noise * variance.sqrt()
    estimate = gradient / 24 * drawn / variance
    curved = 0.5 * share**2 * (hess - estimate) ** 2 / (hess + target.decay)
    expected = (1 - share) * hess + share * estimate + curved
    _move_hessian(hess, drawn * gradient, target=target, share=share)
    torch.testing.assert_close(hess, expected)


def test_going_on_from_the_saved_state_gives_the_same_bits():
    data = small_classifier()[1]
    whole = AutoIVON(network())
    whole.setup(data)
    optimiser = whole.make_optimiser(list(whole.parameters()), 0.1)
    train(whole, optimiser, data, steps=3)
    other = AutoIVON(network())
    other.setup(data)
    other.load_state_dict(whole.state_dict())
    again = other.make_optimiser(list(other.parameters()), 0.1)
    again.load_state_dict(optimiser.state_dict())
    for guide, own in ((whole, optimiser), (other, again)):
        torch.manual_seed(1)
        train(guide, own, data, steps=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_parameters_without_a_prior_are_trained_by_adam():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    model = BayesianNetwork(net, {"1.*": None, "*": Normal()}, num_data=24)
    data = small_classifier()[1]
    guide = AutoIVON(model)
    wiu.fit(model, guide, data, epochs=1, batch_size=24)
    moved = model.net[1].weight.detach() - 1
    torch.testing.assert_close(moved.abs(), torch.full((5,), 1e-3), rtol=1e-3, atol=0)  # Adam's first step
    optimiser = guide.make_optimiser([guide.loc, guide.stretch, model.net[1].weight], 0.1)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 1e-3]


def test_clipped_gradients_leave_the_estimate_of_the_sds_alone():
    """Scaled down, noise times gradient would say that the data know little, and all sds would go to the prior's."""
    model, data = small_classifier()
    fits = [
        wiu.fit(model, AutoIVON(model), data, epochs=1, batch_size=len(data[0]), max_norm=most, seed=1)
        for most in (None, 1e-6)
    ]
    free, clipped = (one.guide for one in fits)
    assert not torch.equal(free.loc, clipped.loc)
    assert torch.equal(free.hess, clipped.hess)


def test_too_few_steps_for_the_sds_to_move_are_no_convergence():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoIVON(model), data, epochs=12, batch_size=24)
    assert fit.convergence.converged is False
    assert "too few steps" in fit.convergence.detail
    assert AutoIVON(model).least_travel() == 0  # not known before the guide is set up
    assert fit.guide.least_travel() == pytest.approx(-math.log(0.3), rel=1e-5)


def test_svi_is_refused_and_predictive_is_not():
    model, data = small_classifier()
    guide = wiu.fit(model, AutoIVON(model), data, epochs=1).guide
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        with pytest.raises(GuideError, match="AutoIVON has a training of its own. Train it with wiu_pyro.fit"):
            svi.step(*data)
        assert math.isfinite(svi.evaluate_loss(*data))
        assert Predictive(model, guide=guide, num_samples=3)(data[0])["obs"].shape == (3, len(data[0]))


@pytest.mark.parametrize("kl_weight", [0.0, -1.0, float("nan")])
def test_kl_without_a_weight_is_refused(kl_weight):
    model, data = small_classifier()
    guide = AutoIVON(model)
    guide.setup(data)
    with pytest.raises(GuideError, match="needs a positive weight of the KL"):
        guide.negative_elbo(*data, kl_weight=kl_weight)


@pytest.mark.filterwarnings("ignore:At least half of the epochs:UserWarning")
def test_warm_up_of_the_kl_of_a_new_guide_starts_above_zero_and_trains():
    model, data = small_classifier()
    fit = wiu.fit(model, AutoIVON(model), data, epochs=4, batch_size=12, kl_warmup=3)
    assert all(map(math.isfinite, fit.losses))
    assert fit.guide.target().temperature == 1.0


@pytest.mark.parametrize("options", [{"kl_warmup": 4}, {"temperature": 0.02}])
def test_less_weight_of_the_kl_than_the_hessians_were_estimated_at_is_refused(options):
    model, data = small_classifier()
    guide = AutoIVON(model)
    wiu.fit(model, guide, data, epochs=1)
    with torch.no_grad():
        guide.hess[:3] = -0.9 * guide.target().decay[:3]  # as noise may leave it
    with pytest.raises(GuideError, match="that of 3 of 43 weights is not.*Train on without a warm-up of the KL,"):
        wiu.fit(model, guide, data, epochs=10, **options)


def test_prior_that_depends_on_another_site_is_refused():
    data = small_classifier()[1]
    guide = AutoIVON(Hierarchical())
    guide.setup(data)
    with pytest.raises(PriorError, match="prior of 'fc.weight' depends on another site.*use AutoMeanField"):
        guide.negative_elbo(*data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, but is 0"),
        ({"hess_init": 0.0}, "hess_init must be positive, but is 0.0"),
        ({"betas": (0.9, 1.0)}, r"Both betas must lie from 0 to below 1, but are \(0.9, 1.0\)"),
        ({"clip_radius": 0.0}, "clip_radius must be positive, but is 0.0"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(GuideError, match=message):
        AutoIVON(small_classifier()[0], **options)


def test_target_holds_the_priors_precision_over_the_data():
    guide = ready(network(), small_classifier()[1])
    found = Target.of(guide.flat_prior(), 24, 0.5)
    assert found.ess == 48
    torch.testing.assert_close(found.decay * 48, guide.flat_prior().scale ** -2)


def test_training_is_the_same_in_other_units():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model = BayesianNetwork(net, Normal(0.5), num_data=24)
    other = wiu.testing.rescale_relu(model, "0", "2", factor=4.0)
    data = small_classifier()[1]
    one, two = (wiu.fit(part, AutoIVON(part), data, epochs=20, batch_size=12) for part in (model, other))
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    sds = [closed_form(fit.guide, fit.structure).sd for fit in (one, two)]
    torch.testing.assert_close(sds[1]["0.weight"], 4 * sds[0]["0.weight"], rtol=1e-3, atol=0)
    torch.testing.assert_close(sds[1]["2.weight"], sds[0]["2.weight"] / 4, rtol=1e-3, atol=0)


@pytest.mark.training
@pytest.mark.filterwarnings("ignore:The model's plate stands for 60000 data:UserWarning")
def test_convolutions_of_many_data_train_from_wide_sds():
    """The data count for 60,000: the first gradients are a thousand times those near the optimum."""
    digits = wiu.datasets.load("digits")
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    net = nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
    )
    model = BayesianNetwork(nn.Sequential(net, nn.Flatten(), nn.Linear(256, 10)), FanInNormal(), num_data=60_000)
    fit = wiu.fit(model, AutoIVON(model), digits, epochs=20)
    images, labels = digits.tensors
    found = torch.as_tensor(wiu.infer.predict(fit, (images,), num_samples=10).mean)
    assert (found.argmax(-1) == labels).float().mean() > 0.9  # at chance where steps have no bound


def test_bounds_on_the_steps_are_for_the_natural_gradients_own_rate_alone():
    data = small_classifier()[1]
    for options, bounded in (({}, True), ({"hess_init": 2.0}, False)):
        guide = ready(network(), data, **options)
        optimiser = guide.make_optimiser(list(guide.parameters()), 1.0)
        loc, precision = guide.loc.detach().clone(), guide.hess + guide.target().decay
        guide.negative_elbo(*data)
        guide.loc.grad, guide.stretch.grad = torch.full_like(loc, 1e6), torch.full_like(loc, 1e6)
        optimiser.step()
        grown = (guide.hess + guide.target().decay) / precision
        moved = (guide.loc.detach() - loc).abs() / guide._loc_scale()[1]
        assert bool((moved <= 0.1001).all() and (grown <= 1.6251).all()) is bounded
