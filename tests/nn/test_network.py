"""`BayesianNetwork` as a Pyro model: sites, densities, scaling, vectorised draws, and what it refuses."""

from __future__ import annotations

import copy

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

from wiu_pyro.errors import LikelihoodError, ModelError, PriorError
from wiu_pyro.nn import BayesianNetwork, Normal, run_at

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def test_given_network_is_left_unchanged():
    given = net()
    before = copy.deepcopy(given.state_dict())
    BayesianNetwork(given, num_data=6)(X)
    assert [name for name, _ in given.named_parameters()] == list(before)
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())


def test_output_at_the_networks_own_weights_is_the_networks():
    given = net()
    _, output = run_at(BayesianNetwork(given), weights_of(given), (X,))
    torch.testing.assert_close(output, given(X))


def test_recurrent_network_runs_at_the_weights_it_is_given():
    """LSTM keeps a second list of its weights, which must not be what it runs with."""
    lstm = nn.LSTM(4, 3, batch_first=True)
    given = nn.Sequential(lstm, type("Last", (nn.Module,), {"forward": lambda self, out: out[0][:, -1]})())
    other = {name: value + 0.3 for name, value in weights_of(given).items()}
    _, output = run_at(BayesianNetwork(given), other, (torch.ones(2, 5, 4),))
    given.load_state_dict(other)
    torch.testing.assert_close(output, given(torch.ones(2, 5, 4)))


def test_sites_carry_the_parameters_names():
    trace = poutine.trace(BayesianNetwork(net())).get_trace(X, torch.zeros(6))
    assert trace.stochastic_nodes == ["0.weight", "0.bias", "2.weight", "2.bias", "data"]
    assert trace.observation_nodes == ["obs"]


def log_joint(model: BayesianNetwork, *batch: torch.Tensor) -> torch.Tensor:
    trace, _ = run_at(model, {**weights_of(net()), "noise_scale": torch.tensor(0.7)}, batch)
    return trace.log_prob_sum()


def log_prior() -> torch.Tensor:
    return sum(torch.distributions.Normal(0.0, 0.5).log_prob(value).sum() for value in weights_of(net()).values())


def test_categorical_likelihood_is_the_scaled_cross_entropy():
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    model = BayesianNetwork(net(), Normal(0.5), num_data=60)
    expected = log_prior() - 10 * nn.functional.cross_entropy(net()(X), y, reduction="sum")
    torch.testing.assert_close(log_joint(model, X, y), expected)


def test_bernoulli_likelihood_is_the_scaled_binary_cross_entropy():
    y = (torch.arange(18).view(6, 3) % 2).float()
    model = BayesianNetwork(net(), Normal(0.5), likelihood="bernoulli", num_data=12)
    loss = nn.functional.binary_cross_entropy_with_logits(net()(X), y, reduction="sum")
    torch.testing.assert_close(log_joint(model, X, y), log_prior() - 2 * loss)


def test_normal_likelihood_has_the_known_noise():
    y = torch.ones(6, 3)
    model = BayesianNetwork(net(), Normal(0.5), likelihood="normal", noise_scale=0.2)
    expected = log_prior() + torch.distributions.Normal(net()(X), 0.2).log_prob(y).sum()
    torch.testing.assert_close(log_joint(model, X, y), expected)


def test_noise_scale_with_a_prior_is_a_site_of_its_own():
    y = torch.ones(6, 3)
    model = BayesianNetwork(net(), Normal(0.5), likelihood="normal", noise_scale=dist.LogNormal(0.0, 1.0))
    noise = torch.tensor(0.7)
    expected = log_prior() + dist.LogNormal(0.0, 1.0).log_prob(noise)
    expected = expected + torch.distributions.Normal(net()(X), noise).log_prob(y).sum()
    torch.testing.assert_close(log_joint(model, X, y), expected)


def test_batches_give_an_unbiased_estimate_of_the_whole_log_likelihood():
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    model = BayesianNetwork(net(), Normal(0.5), num_data=6)
    halves = [log_joint(model, X[rows], y[rows]) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, log_joint(model, X, y))


def test_output_of_one_column_fits_labels_without_one():
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=1.0)
    trace = poutine.trace(model).get_trace(X, torch.zeros(6))
    assert trace.nodes["obs"]["fn"].shape() == (6,)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "normal"])
def test_vectorised_draws_run_each_network_as_if_alone(likelihood):
    model = BayesianNetwork(net(), likelihood=likelihood)
    draws = {
        name: torch.stack([prior.sample() for _ in range(3)]) for name, prior in model.prior_distributions().items()
    }
    draws |= {"noise_scale": torch.tensor([0.1, 0.2, 0.3])} if likelihood == "normal" else {}
    found = [
        Predictive(model, draws, parallel=parallel, return_sites=["_RETURN", "obs"])(X) for parallel in (False, True)
    ]
    torch.testing.assert_close(found[0]["_RETURN"], found[1]["_RETURN"].reshape(3, 6, 3))
    assert found[0]["obs"].shape == found[1]["obs"].shape


def test_model_moves_to_another_dtype_with_its_priors():
    model = BayesianNetwork(net())
    model.prior_distributions()
    model.double()
    assert model(X.double()).dtype == torch.float64


def test_parameters_without_a_prior_stay_trainable_parameters():
    model = BayesianNetwork(net(), {"2.*": Normal()})
    assert [name for name, _ in model.named_parameters()] == ["net.0.weight", "net.0.bias"]


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network


def broken() -> nn.Module:
    network = nn.Linear(4, 3)
    with torch.no_grad():
        network.bias[1] = float("nan")
    return network


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": "a string"}, ModelError, "A torch.nn.Module is needed, but this is a str"),
        ({"net": nn.ReLU()}, ModelError, "The network ReLU has no parameters"),
        ({"net": tied()}, ModelError, r"'0.weight' and '1.weight' are the same tensor \(tied weights\)"),
        ({"net": broken()}, ModelError, "weights must be finite, but 'bias' holds NaN"),
        ({"net": net(), "likelihood": "catgorical"}, LikelihoodError, "Did you mean 'categorical'"),
        ({"net": net(), "noise_scale": 1.0}, LikelihoodError, "noise_scale belongs to likelihood='normal'"),
        ({"net": net(), "likelihood": "normal", "noise_scale": 0.0}, LikelihoodError, "noise_scale must be positive"),
        ({"net": net(), "num_data": 0}, ModelError, "num_data must be at least 1, but is 0"),
        ({"net": net(), "num_data": -3}, ModelError, "num_data must be at least 1, but is -3"),
        ({"net": net(), "prior": {"nothing*": Normal()}}, PriorError, "'nothing\\*' matches no parameter"),
    ],
)
def test_network_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        BayesianNetwork(**arguments)


def test_categorical_network_with_one_number_per_datum_is_refused():
    model = BayesianNetwork(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)))
    with pytest.raises(ModelError, match=r"needs outputs of shape \(batch, classes\), but the network gave \(6,\)"):
        model(X)


def test_labels_at_several_positions_are_refused_with_the_shape_that_came():
    model = BayesianNetwork(nn.Conv2d(1, 3, 3))
    with pytest.raises(ModelError, match=r"one label for each datum.*gave \(2, 3, 4, 4\).*mean-field VI"):
        model(torch.ones(2, 1, 6, 6), torch.zeros(2, 4, 4).long())


LABELS = {
    "categorical": (3, torch.tensor([0, 1, 2, 0, 1, 2])),
    "bernoulli": (3, torch.rand(6, 3, generator=torch.Generator().manual_seed(2)).round()),
    "normal": (3, torch.randn(6, 3, generator=torch.Generator().manual_seed(3))),
}


@pytest.mark.parametrize("likelihood", LABELS)
def test_log_likelihood_is_what_the_observed_site_gets_under_pyro(likelihood):
    outputs, y = LABELS[likelihood]
    model = BayesianNetwork(nn.Linear(4, outputs), likelihood=likelihood, num_data=60)
    draws = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        draws.append({name: prior.sample() for name, prior in model.prior_distributions().items()})
        if likelihood == "normal":
            draws[-1]["noise_scale"] = torch.tensor(0.5 + seed)
    wanted = []
    for weights in draws:
        trace, _ = run_at(model, weights, (X, y))
        trace.compute_log_prob()
        wanted.append(trace.nodes["obs"]["log_prob_sum"])
        torch.testing.assert_close(model.log_likelihood(weights, X, y), wanted[-1])
    stacked = {name: torch.stack([weights[name] for weights in draws]) for name in draws[0]}
    torch.testing.assert_close(model.log_likelihood(stacked, X, y), torch.stack(wanted))
