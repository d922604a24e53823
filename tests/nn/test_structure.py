"""What `inspect_model` reads off a model."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

from wiu_pyro.errors import DataError, ModelError
from wiu_pyro.nn import (
    BayesianNetwork,
    FanInNormal,
    Laplace,
    Normal,
    ScaleMixtureNormal,
    describe_prior,
    inspect_model,
    run_at,
)

X, Y = torch.ones(6, 1, 8, 8), torch.zeros(6, dtype=torch.long)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5))
        self.out = nn.Linear(72, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.features(x).flatten(1))


class Regression(PyroModule):
    """A user's own model: PyroSample weights, and a plate that subsamples."""

    def __init__(self, *, hierarchical: bool = False) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 1)
        if hierarchical:
            self.prior_scale = PyroSample(dist.LogNormal(0.0, 1.0))
            self.fc.weight = PyroSample(lambda _: dist.Normal(0.0, self.prior_scale).expand([1, 4]).to_event(2))
        else:
            self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2))
        self.fc.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        self.noise_scale = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        mean, noise = self.fc(x).squeeze(-1), self.noise_scale
        with pyro.plate("data", size=100, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)
        return mean


def test_layers_are_the_modules_with_sampled_weights_in_order():
    structure = inspect_model(BayesianNetwork(ConvNet(), num_data=60), X, Y)
    assert [(layer.name, layer.module_type, layer.depth, layer.num_weights) for layer in structure.layers] == [
        ("features.0", "Conv2d", 0, 20),
        ("features.1", "BatchNorm2d", 1, 4),
        ("out", "Linear", 2, 219),
    ]
    assert structure.layers[0].shapes == {"weight": (2, 1, 3, 3), "bias": (2,)}
    assert structure.parameter_sites["features.1.bias"] == ("features.1", "bias")
    assert (structure.likelihood, structure.num_outputs, structure.num_data) == ("categorical", 3, 60.0)
    assert structure.observed == "obs"


def test_network_that_is_one_layer_is_called_net():
    structure = inspect_model(BayesianNetwork(nn.Linear(4, 3)), torch.ones(2, 4), torch.zeros(2))
    assert [(layer.name, layer.sites) for layer in structure.layers] == [("net", {"weight": "weight", "bias": "bias"})]


def test_pyro_module_with_sampled_weights_is_read_the_same_way():
    structure = inspect_model(Regression(), torch.ones(5, 4), torch.zeros(5))
    assert [(layer.name, layer.module_type, layer.num_weights) for layer in structure.layers] == [("fc", "Linear", 5)]
    assert structure.other_sites == ("noise_scale",)
    assert (structure.observed, structure.likelihood, structure.num_data) == ("y", "normal", 100.0)


def test_parameters_left_without_a_prior_are_named():
    structure = inspect_model(BayesianNetwork(ConvNet(), {"out.*": FanInNormal()}), X, Y)
    assert structure.not_covered == ("features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias")


def test_prior_that_depends_on_another_site_is_named():
    assert inspect_model(Regression(hierarchical=True), torch.ones(5, 4), torch.zeros(5)).dependent_priors == (
        "fc.weight",
    )
    assert inspect_model(Regression(), torch.ones(5, 4), torch.zeros(5)).dependent_priors == ()


def test_looking_at_a_model_changes_neither_statistics_nor_mode_nor_random_state():
    model = BayesianNetwork(ConvNet()).train()
    mean = model.net.features[1].running_mean.clone()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    inspect_model(model, X + 5, Y)
    assert torch.equal(model.net.features[1].running_mean, mean)
    assert model.net.features[1].training
    assert model.net.features[3].training
    assert states[0] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (Normal(0.5), "Normal(0, 0.5)"),
        (Laplace(2.0, loc=1.0), "Laplace(1, 2)"),
        (ScaleMixtureNormal(), "0.25 Normal(0, 1) + 0.75 Normal(0, 0.0025)"),
    ],
)
def test_constant_prior_is_described_with_its_numbers(prior, text):
    assert describe_prior(prior.distribution(torch.zeros(2, 3), name="weight", module=None)) == text


def test_prior_that_differs_between_weights_says_so():
    text = describe_prior(dist.Normal(torch.zeros(2), torch.tensor([1.0, 2.0])).to_event(1))
    assert text == "Normal(loc and scale differ between weights)"


@pytest.mark.parametrize(
    ("likelihood", "net", "shape"),
    [("categorical", nn.Linear(4, 3), (6, 1)), ("normal", nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), (6, 1))],
)
def test_labels_that_would_be_broadcast_are_refused(likelihood, net, shape):
    noise = {"noise_scale": 1.0} if likelihood == "normal" else {}
    model = BayesianNetwork(net, likelihood=likelihood, **noise)
    with pytest.raises(DataError, match=r"Labels of shape \(6,\) are needed at the observed site 'obs', .* \(6, 1\)"):
        inspect_model(model, torch.ones(6, 4), torch.zeros(shape))


def test_model_called_without_labels_has_no_observed_site():
    with pytest.raises(ModelError, match=r"exactly one observed site, but has 0 \(none\)"):
        inspect_model(BayesianNetwork(nn.Linear(4, 3)), torch.ones(2, 4))


def test_model_with_two_observed_sites_is_refused():
    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(w, 1.0), obs=y[0])
        pyro.sample("b", dist.Normal(w, 1.0), obs=y[1])

    with pytest.raises(ModelError, match=r"exactly one observed site, but has 2 \(a, b\)"):
        inspect_model(model, torch.ones(2), torch.zeros(2))


def test_model_without_weights_is_refused():
    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(x, 1.0), obs=y)

    with pytest.raises(ModelError, match="samples no weights"):
        inspect_model(model, torch.ones(2), torch.zeros(2))


class LearnedNoise(PyroModule):
    """A regression whose noise is a learned parameter, of Pyro's or of the module."""

    def __init__(self, *, own: bool) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 2, bias=False)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 4]).to_event(2))
        self.log_noise = nn.Parameter(torch.tensor(-1.0)) if own else None

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        mean = self.fc(x)
        noise = pyro.param("noise", torch.tensor(0.3)) if self.log_noise is None else self.log_noise.exp()
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, noise).to_event(1), obs=y)
        return mean


@pytest.mark.parametrize(("own", "name"), [(False, "noise"), (True, "log_noise")])
def test_learned_noise_is_named_as_not_covered(own, name):
    assert inspect_model(LearnedNoise(own=own), torch.ones(3, 4), torch.zeros(3, 2)).not_covered == (name,)


@pytest.mark.parametrize("own", [False, True])
def test_learned_parameters_are_constants_of_a_run_that_holds_them(own):
    model, batch = LearnedNoise(own=own), (torch.ones(3, 4), torch.zeros(3, 2))
    weights = {"fc.weight": torch.ones(2, 4, requires_grad=True)}
    scales = {}
    for hold in (True, False):
        trace, output = run_at(model, weights, batch, hold_parameters=hold)
        scales[hold] = trace.nodes["obs"]["fn"].base_dist.scale
        assert output.requires_grad
    assert not scales[True].requires_grad
    assert scales[False].requires_grad
    assert torch.equal(scales[True], scales[False])
