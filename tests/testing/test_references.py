"""References are held to closed forms and to plain computations; what they say of themselves is held to the truth."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate, special, stats
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import schema
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.testing import exact_posterior, grid_posterior, linear_gaussian, nuts_posterior
from wiu_pyro.testing.log_joint import LogJoint
from wiu_pyro.testing.nuts import rhat_and_ess
from wiu_pyro.testing.symmetry import align, hidden_units

SHORT = {"num_samples": 60, "warmup_steps": 60, "num_chains": 2, "max_tree_depth": 4}


def network(*layers, likelihood="categorical", num_data=12, seed=0, **options):
    torch.manual_seed(seed)
    return wiu.nn.BayesianNetwork(nn.Sequential(*layers), likelihood=likelihood, num_data=num_data, **options)


def data(likelihood, num=12, width=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num, width, generator=generator)
    labels = {
        "categorical": torch.arange(num) % 3,
        "bernoulli": (x[:, :1] > 0).float(),
        "normal": x[:, :2] + 0.1,
    }
    return x, labels[likelihood]


@pytest.mark.parametrize(("likelihood", "outputs"), [("categorical", 3), ("bernoulli", 1), ("normal", 2)])
@pytest.mark.parametrize("num_data", [12, 30])
def test_log_joint_is_that_of_the_pyro_model(likelihood, outputs, num_data):
    options = {"noise_scale": 0.4} if likelihood == "normal" else {}
    options |= {"likelihood": likelihood, "num_data": num_data}
    model = network(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs), **options)
    batch = data(likelihood)
    log_joint = LogJoint(model, batch)
    weights = log_joint.own_weights()
    trace = poutine.trace(poutine.condition(model, log_joint.by_site(weights))).get_trace(*batch)
    assert float(log_joint(weights)) == pytest.approx(float(trace.log_prob_sum()), rel=1e-5)


def test_log_joint_of_a_users_own_model_is_its_traces():
    def model(x, y=None):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(x @ weight, 0.5), obs=y)

    x, y = torch.randn(5, 3), torch.randn(5)
    log_joint, weight = LogJoint(model, (x, y)), torch.tensor([0.3, -1.0, 2.0])
    expected = dist.Normal(0.0, 2.0).log_prob(weight).sum() + dist.Normal(x @ weight, 0.5).log_prob(y).sum()
    assert float(log_joint(weight)) == pytest.approx(float(expected), rel=1e-5)


def test_prior_that_is_not_normal_and_a_free_noise_scale_are_refused():
    model = wiu.nn.BayesianNetwork(nn.Linear(3, 3), wiu.nn.Laplace(1.0), num_data=12)
    with pytest.raises(PriorError, match="made for Normal priors that are fixed, but that of 'weight' is a Laplace"):
        nuts_posterior(model, data("categorical"))
    free = network(nn.Linear(3, 2), likelihood="normal")
    with pytest.raises(GuideError, match="samples 'noise_scale' too. Fix it"):
        nuts_posterior(free, data("normal"))


# closed form and grid


def test_exact_posterior_is_the_closed_form_through_the_file(tmp_path):
    problem = linear_gaussian(in_features=3, out_features=2)
    idata = wiu.to_inference_data(exact_posterior(problem, num_samples=50), problem.data)
    read = wiu.load(wiu.save(idata, tmp_path / "exact.nc"))
    moments = schema.dataset(read, "moments_net")
    sd = problem.covariance.diagonal().sqrt()
    conditional = torch.linalg.inv(problem.covariance).diagonal().rsqrt()
    np.testing.assert_allclose(moments["sd"].values.ravel(), sd[:6], rtol=1e-5)
    np.testing.assert_allclose(moments["bias_sd_conditional"].values.ravel(), conditional[6:], rtol=1e-5)
    assert float(schema.dataset(read, "layers")["kl"].squeeze()) == pytest.approx(problem.kl)
    assert schema.attrs(read)["approximation"] == "exact"
    assert schema.attrs(read)["converged"] == "yes"


@pytest.mark.parametrize("in_features", [1, 2])
def test_grid_finds_the_linear_gaussian_posterior(in_features):
    problem = linear_gaussian(in_features=in_features, out_features=1)
    closed = grid_posterior(problem.model, problem.data).closed[0]
    conditional = torch.linalg.inv(problem.covariance).diagonal().rsqrt()
    parts = {"sd": closed.sd, "sd_conditional": closed.sd_conditional}
    flat = {name: torch.cat([part["weight"].flatten(), part["bias"]]) for name, part in parts.items()}
    torch.testing.assert_close(flat["sd"], problem.covariance.diagonal().sqrt(), rtol=1e-4, atol=0)
    torch.testing.assert_close(flat["sd_conditional"], conditional, rtol=1e-4, atol=0)
    torch.testing.assert_close(closed.mean["weight"], problem.mean["weight"], rtol=1e-4, atol=1e-6)
    assert closed.kl_total == pytest.approx(problem.kl, rel=1e-4)


def test_grid_integrates_a_skewed_posterior_as_quadrature_does():
    model = wiu.nn.BayesianNetwork(nn.Linear(1, 1, bias=False), wiu.nn.Normal(4.0), likelihood="bernoulli", num_data=4)
    x, y = torch.tensor([[-1.0], [0.5], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [1.0], [1.0]])

    def density(w):
        sign = np.where(y.numpy().ravel() > 0, 1, -1)
        return stats.norm.pdf(w, 0, 4) * np.prod(special.expit(sign * x.numpy().ravel() * w))

    mass, first, second = (integrate.quad(lambda w, k=k: w**k * density(w), -30, 40, limit=200)[0] for k in range(3))
    closed = grid_posterior(model, (x, y)).closed[0]
    mean = first / mass
    assert closed.mean["weight"].item() == pytest.approx(mean, rel=1e-3)
    assert closed.sd["weight"].item() == pytest.approx(math.sqrt(second / mass - mean**2), rel=1e-3)


def test_grid_moves_mirrored_modes_onto_one_another():
    model = wiu.nn.BayesianNetwork(
        nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)),
        wiu.nn.Normal(1.0), likelihood="normal", noise_scale=0.2, num_data=6,
    )  # fmt: skip
    x = torch.linspace(-2, 2, 6)[:, None]
    found = grid_posterior(model, (x, torch.tanh(x)))
    closed = found.closed[0]
    assert closed.sd["0.weight"].item() < 0.5 * abs(closed.mean["0.weight"].item())
    assert (found.samples["0.weight"].flatten() * closed.mean["0.weight"].item() > 0).float().mean() > 0.99


def test_grid_too_coarse_for_the_posterior_says_it_has_not_converged():
    problem = linear_gaussian(in_features=2, out_features=1, num_data=400)
    assert not grid_posterior(problem.model, problem.data, points=11).convergence.converged


def test_grid_refuses_what_is_too_large():
    problem = linear_gaussian(in_features=3, out_features=2)
    with pytest.raises(GuideError, match="up to three weights, but the model has 8. Use nuts_posterior"):
        grid_posterior(problem.model, problem.data)
    small = linear_gaussian(in_features=1, out_features=1)
    with pytest.raises(GuideError, match="At least 11 points"):
        grid_posterior(small.model, small.data, points=5)


# alignment


@pytest.mark.parametrize(
    ("activation", "signs"), [(nn.Tanh(), True), (nn.ReLU(), False), (nn.Softplus(), False), (nn.Identity(), True)]
)
def test_symmetries_are_read_from_the_network_itself(activation, signs):
    log_joint = LogJoint(network(nn.Linear(3, 4), activation, nn.Linear(4, 3)), data("categorical"))
    (units,) = hidden_units(log_joint, log_joint.own_weights())
    assert (units.size, units.signs, units.incoming, units.outgoing) == (4, signs, ("0.weight", "0.bias"), "2.weight")


def test_units_that_differ_by_prior_or_by_what_follows_are_not_interchangeable():
    class Scaled(nn.Module):
        def forward(self, x):
            return x * torch.arange(1.0, 5.0)

    log_joint = LogJoint(network(nn.Linear(3, 4), nn.ReLU(), Scaled(), nn.Linear(4, 3)), data("categorical"))
    assert hidden_units(log_joint, log_joint.own_weights()) == []


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()])
def test_draws_scattered_over_copies_of_the_mode_come_back_to_it(activation):
    model = network(nn.Linear(3, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 3))
    log_joint = LogJoint(model, data("categorical"))
    mode = log_joint.own_weights()
    units = hidden_units(log_joint, mode)
    assert len(units) == 2
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(30, len(mode), generator=generator)
    draws = log_joint.by_site(mode + noise)
    scattered = draws
    for one in units:
        order = torch.stack([torch.randperm(one.size, generator=generator) for _ in range(30)])
        sign = torch.randint(0, 2, (30, one.size), generator=generator) * 2.0 - 1
        sign = sign if one.signs else torch.ones(30, one.size)
        scattered = one.moved(scattered, order, sign)
    scale = log_joint.by_site(log_joint.prior_scale)
    found = align(scattered, log_joint.by_site(mode), units=units, scale=scale)
    torch.testing.assert_close(log_joint.flat(found.apply(scattered)), log_joint.flat(draws))
    assert found.moved.float().mean() > 0.9
    before, after = (log_joint.output(log_joint.flat(part)[3], log_joint.data[0]) for part in (scattered, draws))
    torch.testing.assert_close(before, after)


def test_assignment_is_the_nearest_of_all_copies():
    model = network(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    log_joint = LogJoint(model, (torch.randn(4, 2), torch.tensor([0, 1, 0, 1])))
    mode = log_joint.own_weights()
    (units,) = hidden_units(log_joint, mode)
    draws = log_joint.by_site(torch.randn(6, len(mode), generator=torch.Generator().manual_seed(2)))
    scale = log_joint.by_site(log_joint.prior_scale)
    found = log_joint.flat(align(draws, log_joint.by_site(mode), units=[units], scale=scale).apply(draws))
    copies = torch.stack(
        [
            log_joint.flat(units.moved(draws, torch.tensor([order] * 6), torch.ones(6, 3)))
            for order in itertools.permutations(range(3))
        ]
    )  # (copy, draw, weights)
    distance = ((copies - mode) / log_joint.prior_scale).square().sum(-1)
    nearest = copies[distance.argmin(0), torch.arange(6)]
    torch.testing.assert_close(found, nearest)


# NUTS


@pytest.mark.slow
def test_nuts_finds_the_linear_gaussian_posterior_within_its_own_error():
    problem = linear_gaussian(in_features=2, out_features=1)
    found = nuts_posterior(problem.model, problem.data, problem.mean, num_samples=250, warmup_steps=100, num_chains=2)
    ess = found.notes["ess_weights"]
    draws = torch.cat([found.samples["weight"].flatten(2), found.samples["bias"].flatten(2)], -1).flatten(0, 1)
    sd = problem.covariance.diagonal().sqrt()
    exact = torch.cat([problem.mean["weight"].flatten(), problem.mean["bias"]])
    # 4 standard errors of a mean and of an sd over `ess` draws
    assert bool(((draws.mean(0) - exact).abs() < 4 * sd / math.sqrt(ess)).all())
    assert bool(((draws.std(0) / sd - 1).abs() < 4 / math.sqrt(2 * ess)).all())
    precision = torch.linalg.inv(problem.covariance).diagonal()
    scores = torch.stack([torch.cat([one["weight"].flatten(), one["bias"]]) for one in found.sd_conditional])
    # a mean of squared Normals: relative se of the precision sqrt(2 / ess)
    assert bool((scores.square().reciprocal().mean(0) / precision - 1).abs().max() < 4 * math.sqrt(2 / ess))
    assert found.convergence.converged


@pytest.mark.slow
def test_nuts_goes_through_the_file_and_two_runs_of_a_seed_are_one(tmp_path):
    model, batch = network(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), data("categorical")
    first, second = (nuts_posterior(model, batch, seed=3, **SHORT) for _ in range(2))
    assert all(torch.equal(first.samples[site], second.samples[site]) for site in first.samples)
    read = wiu.load(wiu.save(wiu.to_inference_data(first, batch), tmp_path / "nuts.nc"))
    said = schema.attrs(read)
    assert (said["guide"], said["approximation"], said["symmetries"]) == ("MCMC", "nuts", "permutations and signs of 0")
    assert said["converged"] == "no"  # 120 draws are too few for the limit of 200 effective ones
    assert said["ess_weights"] < 200
    assert schema.dataset(read, "moments_0")["sd_conditional"].sizes["chain"] == 2
    assert "probability_variance" in schema.dataset(read, "predictive_sampled")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_chain": 2}, "no option 'num_chain'. Did you mean 'num_chains'"),
        ({"num_chains": 1}, "Two chains of ten draws at least"),
        ({"num_samples": 5}, "Two chains of ten draws at least"),
    ],
)
def test_nuts_refuses_options_it_does_not_have(options, message):
    with pytest.raises(GuideError, match=message):
        nuts_posterior(network(nn.Linear(3, 3)), data("categorical"), **options)


def test_nuts_refuses_a_large_network():
    with pytest.raises(GuideError, match=r"up to 1,500 weights, but the network has 2,103"):
        nuts_posterior(network(nn.Linear(3, 300), nn.ReLU(), nn.Linear(300, 3)), data("categorical"))


def test_chains_that_do_not_mix_are_told_from_those_that_do():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4, 300, 3))
    rhat, ess = rhat_and_ess(mixed)
    assert rhat < 1.03
    assert ess > 600
    apart = mixed + np.array([0, 0, 0, 2])[:, None, None] * np.array([0, 0, 1])
    rhat, ess = rhat_and_ess(apart)
    assert rhat > 1.2
    assert ess < 60
    assert rhat_and_ess(np.ones((2, 20, 3))) == (math.inf, 0.0)


def test_draws_from_elsewhere_need_every_site_and_one_number_of_draws():
    model, batch = network(nn.Linear(3, 3)), data("categorical")
    structure = wiu.nn.inspect_model(model, *batch)
    samples = {"0.weight": torch.zeros(1, 4, 3, 3), "0.bias": torch.zeros(1, 4, 3)}
    with pytest.raises(GuideError, match="there are none of '0.bias'"):
        wiu.infer.SampledPosterior(model, structure, {"0.weight": samples["0.weight"]}, "mine")
    with pytest.raises(GuideError, match="As many chains and draws of each site are needed"):
        wiu.infer.SampledPosterior(model, structure, samples | {"0.bias": torch.zeros(1, 5, 3)}, "mine")
    idata = wiu.to_inference_data(wiu.infer.SampledPosterior(model, structure, samples, "mine", method="ensemble"))
    assert schema.attrs(idata)["approximation"] == "mine"
