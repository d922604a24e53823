"""The covariance of a linearised network's outputs against J Λ⁻¹ J' formed in full."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

import wiu_pyro as wiu
from tests.curvature.networks import CLASSES, NETWORKS, build, jacobians
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import (
    AutoBlockDiagonalLaplace,
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoLaplace,
    AutoMeanField,
    AutoSubnetworkLaplace,
)
from wiu_pyro.infer import functional_distribution
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches

# torch warns of an even kernel under padding="same": it pads more on one side, which is what is tested
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:e?kfac covers Linear and convolutions"),  # the rest: a diagonal
]

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def expected_covariance(net: nn.Module, posterior, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(x), CLASSES, CLASSES, dtype=torch.float64)
    for block in posterior.blocks:
        paths = ["" if name == "net" else name for name in block.layers]
        jacobian = torch.cat([jacobians(net, x, path) for path in paths], -1)
        if block.entries is not None:
            jacobian = jacobian[..., block.entries]
        covariance = block.precision.covariance_of(torch.eye(block.precision.numel, dtype=torch.float64))
        total += jacobian @ covariance @ jacobian.mT
    return total


@pytest.mark.parametrize(
    "guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace, AutoBlockDiagonalLaplace]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_covariance_of_the_outputs_is_the_sandwich_of_their_jacobians(name, guide_class):
    net, x = build(name)
    model = BayesianNetwork(net, num_data=6).eval()
    posterior = guide_class(model).laplace_approximation(x, LABELS)
    parts = list(functional_distribution(model, posterior, as_batches((x,), batch_size=4)))
    assert [len(part.mean) for part in parts] == [4, 2]
    torch.testing.assert_close(torch.cat([part.mean for part in parts]), net(x).detach())
    covariance = torch.cat([part.covariance for part in parts])
    torch.testing.assert_close(covariance, expected_covariance(net, posterior, x))


@pytest.mark.parametrize(
    "guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace, AutoBlockDiagonalLaplace]
)
@pytest.mark.parametrize("name", ["conv", "grouped", "sequence"])
def test_covariance_in_parts_is_the_covariance_at_once(name, guide_class, monkeypatch):
    net, x = build(name)
    model = BayesianNetwork(net, num_data=6).eval()
    posterior = guide_class(model).laplace_approximation(x, LABELS)
    whole = list(functional_distribution(model, posterior, as_batches((x, LABELS), batch_size=4)))
    monkeypatch.setattr("wiu_pyro.infer.block_covariance.MAX_ELEMENTS", 1)
    monkeypatch.setattr("wiu_pyro.infer.functional.FIRST_ROWS", 1)
    monkeypatch.setattr("wiu_pyro.infer.functional.GRAD_ELEMENTS", {"cpu": 1})
    parts = list(functional_distribution(model, posterior, as_batches((x, LABELS), batch_size=4)))
    assert [len(part.mean) for part in parts] == [4, 2]
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one.covariance, other.covariance)
        torch.testing.assert_close(one.mean, other.mean)
        torch.testing.assert_close(one.likelihood.output, other.likelihood.output)
        torch.testing.assert_close(one.batch, other.batch)


@pytest.mark.parametrize("name", ["mlp", "sequence", "conv", "grouped", "conv3d", "transposed"])
def test_covariance_of_eigenvalue_corrected_factors_is_the_sandwich_too(name):
    net, x = build(name)
    model = BayesianNetwork(net, num_data=6).eval()
    posterior = AutoEKFACLaplace(model).laplace_approximation(x, LABELS)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    torch.testing.assert_close(part.covariance, expected_covariance(net, posterior, x))


@pytest.mark.parametrize("structure", ["full", "diagonal"])
@pytest.mark.parametrize("select", ["largest-variance", "largest-magnitude"])
def test_chosen_weights_alone_make_the_covariance_of_a_subnetwork(select, structure):
    net, x = build("conv")
    model = BayesianNetwork(net, num_data=6).eval()
    guide = AutoSubnetworkLaplace(model, num_weights=9, select=select, structure=structure)
    posterior = guide.laplace_approximation(x, LABELS)
    assert sum(block.precision.numel for block in posterior.blocks) == 9
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    torch.testing.assert_close(part.covariance, expected_covariance(net, posterior, x))


@pytest.mark.parametrize("structure", [{"0": "kfac"}, {"4": "full"}, {"0": "diagonal", "4": "kfac"}])
def test_layers_at_their_point_estimate_add_no_covariance(structure):
    net, x = build("batch-norm")  # layers 0, 1 and 4
    model = BayesianNetwork(net, num_data=6).eval()
    posterior = AutoLaplace(model, structure=structure).laplace_approximation(x, LABELS)
    assert [name for block in posterior.blocks for name in block.layers] == list(structure)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    torch.testing.assert_close(part.covariance, expected_covariance(net, posterior, x))


def test_noise_of_all_parts_of_a_batch_is_kept(monkeypatch):
    net, x = build("mlp")
    model = BayesianNetwork(net, likelihood="normal", num_data=6).eval()
    posterior = AutoKFACLaplace(model).laplace_approximation(x, torch.zeros(6, CLASSES, dtype=x.dtype))
    monkeypatch.setattr("wiu_pyro.infer.functional.FIRST_ROWS", 4)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    assert part.likelihood.noise_scale.shape == part.mean.shape == (6, CLASSES)


def test_guide_without_a_laplace_approximation_is_refused():
    net, x = build("mlp")
    model = BayesianNetwork(net)
    fit = wiu.fit(model, AutoMeanField(model), (x, LABELS), epochs=0)
    with pytest.raises(GuideError, match=r'this is AutoMeanField \(no Laplace guide\). Use kind="sampled"'):
        next(functional_distribution(model, fit.guide, as_batches((x,))))


@pytest.mark.parametrize("guide_class", [AutoFullLaplace, AutoBlockDiagonalLaplace])
@pytest.mark.parametrize("name", ["mlp", "conv", "layer-norm-2d"])
def test_posterior_of_the_exact_hessian_is_linearised_too(name, guide_class):
    net, x = build(name)
    model = BayesianNetwork(net, prior=Normal(0.1), num_data=6).eval()  # narrow: positive definite away from the mode
    posterior = guide_class(model, curvature="hessian").laplace_approximation(x, LABELS)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    torch.testing.assert_close(part.covariance, expected_covariance(net, posterior, x))


class UsedTwice(nn.Module):
    """Calls one layer twice: its Jacobian is the sum over both uses, which no layer's input and output show."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


def test_posterior_of_the_exact_hessian_of_a_shared_layer_is_linearised_too():
    torch.manual_seed(0)
    net, x = UsedTwice().double(), torch.randn(6, 4).double()
    model = BayesianNetwork(net, prior=Normal(0.1), num_data=6).eval()
    posterior = AutoFullLaplace(model, curvature="hessian").laplace_approximation(x, LABELS)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    weights = {name: value.detach() for name, value in net.named_parameters()}
    per_site = torch.func.vmap(
        torch.func.jacrev(lambda w, one: torch.func.functional_call(net, w, (one[None],))[0]), (None, 0)
    )(weights, x)
    (block,) = posterior.blocks
    jacobian = torch.cat([per_site[name].flatten(2) for name, *_ in posterior.sites()], -1)[..., block.index]
    torch.testing.assert_close(part.covariance, block.precision.covariance_of(jacobian))


def count_model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([4, 1]).to_event(2))
    rate = (x @ weight)[:, 0].exp()
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Poisson(rate), obs=y)
    return rate


def test_hessian_of_a_likelihood_that_names_no_output_is_refused():
    x = torch.randn(6, 4)
    posterior = AutoFullLaplace(count_model, curvature="hessian").laplace_approximation(x, LABELS.float())
    with pytest.raises(GuideError, match=r'this is AutoFullLaplace \(hessian\). Use kind="sampled"'):
        next(functional_distribution(count_model, posterior, as_batches((x,))))


class ReturnsProbabilities(PyroModule):
    """A classifier whose model returns probabilities, not the logits its likelihood has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](4, 3, bias=False)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 4]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.fc(x)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Categorical(logits=logits), obs=y)
        return torch.softmax(logits, -1)


def test_output_that_is_not_the_likelihoods_own_is_not_taken_for_it():
    torch.manual_seed(0)
    model, x = ReturnsProbabilities(), torch.randn(6, 4)
    posterior = AutoFullLaplace(model).laplace_approximation(x, LABELS)
    part = next(functional_distribution(model, posterior, as_batches((x,))))
    logits = torch.log_softmax(x @ posterior.point_estimate()["fc.weight"].mT, -1)
    torch.testing.assert_close(torch.log_softmax(part.mean, -1), logits)
