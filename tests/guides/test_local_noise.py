"""Weight noise as output noise: the distribution of each datum's output, and the objective, stay what they are."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from torch import nn
from torch.func import functional_call, jacrev, vmap

from wiu_pyro.errors import ModelError
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.guides.local_noise import local_noise
from wiu_pyro.nn import BayesianNetwork, Normal

F64 = torch.float64


class Total(nn.Module):
    """Sums over positions, (batch, channels, ...) to (batch, channels): correlation between them shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).sum(2)


class Turned(nn.Module):
    """Moves the features of a sequence to the front, as `Total` wants them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mT


LAYERS = {
    "linear": (lambda: nn.Linear(3, 2), (3,)),
    "linear-no-bias": (lambda: nn.Linear(3, 2, bias=False), (3,)),
    "sequence": (lambda: nn.Linear(3, 2), (2, 3)),
    "conv1d": (lambda: nn.Conv1d(2, 2, 2), (2, 3)),
    "conv2d": (lambda: nn.Conv2d(1, 2, 2, stride=2, padding=1), (1, 3, 3)),
    "grouped": (lambda: nn.Conv2d(2, 2, 2, groups=2, dilation=2), (2, 4, 3)),
    "circular": (lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False), (1, 2, 2)),
}


def output_covariance(layer: nn.Module, x: torch.Tensor, variances: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return J diag(variances) J' for each datum: a layer is linear in its weights, so this is exact."""
    weights = {name: value.detach() for name, value in layer.named_parameters()}
    outputs = vmap(jacrev(lambda values, one: functional_call(layer, values, (one[None],)).flatten()), (None, 0))
    total = torch.zeros(())
    for name, jacobian in outputs(weights, x).items():
        flat = jacobian.flatten(2)  # (batch, outputs, numel)
        total = total + (flat * variances[name].reshape(-1)) @ flat.mT
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_output_of_each_datum_has_the_covariance_its_weights_give_it(name):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(2, *shape, dtype=F64)
    variances = {key: torch.rand(value.shape, dtype=F64) + 0.1 for key, value in layer.named_parameters()}
    draws = []
    with torch.no_grad():
        for _ in range(2000):
            with local_noise({"": layer}, {"": variances}):
                draws.append(layer(x))
        noise = (torch.stack(draws) - layer(x)).flatten(2)
    assert (noise.mean(0).abs() <= 5 * noise.std(0) / 2000**0.5 + 1e-12).all()
    products = torch.einsum("sno,snp->snop", noise, noise)
    error = products.std(0) / 2000**0.5
    assert ((products.mean(0) - output_covariance(layer, x, variances)).abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("name", LAYERS)
def test_noise_of_one_datum_is_uncorrelated_with_that_of_another(name):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    x = torch.randn(1, *shape, dtype=F64).expand(2, *shape)  # the same datum twice
    variances = {key: torch.ones(value.shape, dtype=F64) for key, value in layer.named_parameters()}
    draws = []
    with torch.no_grad():
        for _ in range(400):
            with local_noise({"": layer}, {"": variances}):
                draws.append(layer(x).flatten(1))
        noise = torch.stack(draws) - layer(x).flatten(1)
    products = noise[:, 0] * noise[:, 1]
    assert (products.mean(0).abs() <= 5 * products.std(0) / 400**0.5 + 1e-12).all()


NETWORKS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), Total()), (1, 6, 6)),
    "sequence": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), Turned(), Total()), (7, 3)),
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,)),
    "conv-norm": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), Total(), nn.Linear(2, 2)),
        (1, 5, 5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_objective_has_the_expectation_of_sampled_weights_and_less_noise(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = make().eval()
    x, y = torch.rand(8, *shape), torch.zeros(8, 2)
    model = BayesianNetwork(net, Normal(1.0), likelihood="normal", noise_scale=2.0, num_data=80).eval()
    found = {}
    for estimator in ("local", "reparam"):
        guide = AutoMeanField(model, estimator=estimator, init_scale=0.4)
        guide.setup((x, y))
        torch.manual_seed(1)
        with torch.no_grad(), poutine.block():
            found[estimator] = torch.tensor([guide.negative_elbo(x, y).item() for _ in range(400)])
    local, sampled = found["local"], found["reparam"]
    error = ((local.var() + sampled.var()) / 400).sqrt()
    assert abs(local.mean() - sampled.mean()) < 5 * error
    assert local.std() < 0.9 * sampled.std()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(x))


def test_layer_called_twice_is_refused_with_the_way_out():
    model = BayesianNetwork(Twice(), num_data=4)
    guide = AutoMeanField(model)
    batch = (torch.ones(4, 2), torch.zeros(4))
    guide.setup(batch)
    with pytest.raises(ModelError, match=r"'fc' was called twice. Use AutoMeanField\(model, estimator=\"reparam\"\)"):
        guide.negative_elbo(*batch)
    other = AutoMeanField(model, estimator="reparam")
    other.setup(batch)
    assert other.negative_elbo(*batch).isfinite()
