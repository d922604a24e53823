"""The predictive against laplace-torch's, on posteriors that are the same in both."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace
from wiu_pyro.infer import functional_distribution, predict
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches

NUM_DATA, CLASSES, PRECISION = 24, 4, 1.7
STRUCTURES = {"diag": AutoDiagonalLaplace, "full": AutoFullLaplace, "kron": AutoKFACLaplace}

pytestmark = [
    pytest.mark.slow,
    # BackPACK's hooks on a first layer, whose input needs no gradient
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
]


def network(name: str, *, bias: bool) -> tuple[nn.Module, torch.Tensor]:
    """Return a network and inputs; without biases both libraries have the same Kronecker blocks."""
    torch.manual_seed(0)
    if name == "mlp":
        layers = (nn.Linear(6, 8, bias=bias), nn.Tanh(), nn.Linear(8, CLASSES, bias=bias))
        return nn.Sequential(*layers), torch.randn(NUM_DATA, 6)
    layers = (
        nn.Conv2d(1, 3, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 5, 3, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, CLASSES, bias=bias),
    )
    return nn.Sequential(*layers), torch.randn(NUM_DATA, 1, 8, 8)


def both(name: str, structure: str, *, bias: bool):
    """Return laplace-torch's posterior, our fit of the same, and the inputs."""
    from laplace import Laplace
    from laplace.curvature import BackPackGGN, CurvlinopsGGN

    net, x = network(name, bias=bias)
    labels = torch.arange(NUM_DATA) % CLASSES
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=NUM_DATA)
    # BackPACK sums a convolution's input factor over positions where curvlinops and we take the mean
    backend = CurvlinopsGGN if structure == "kron" else BackPackGGN
    options = {"subset_of_weights": "all", "hessian_structure": structure, "backend": backend}
    theirs = Laplace(copy.deepcopy(net), "classification", prior_precision=PRECISION, **options)
    theirs.fit(loader)
    model = BayesianNetwork(net, Normal(PRECISION**-0.5), num_data=NUM_DATA)
    return theirs, wiu.fit(model, STRUCTURES[structure](model), (x, labels), epochs=0), x


@pytest.mark.parametrize(
    ("name", "structure", "bias"),
    [
        ("mlp", "diag", True),
        ("mlp", "full", True),
        ("mlp", "kron", False),
        ("lenet", "diag", True),
        ("lenet", "full", True),
        ("lenet", "kron", False),
    ],
)
def test_functional_covariance_is_that_of_laplace_torch_to_a_ten_thousandth(name, structure, bias):
    """Kronecker blocks without biases: laplace-torch gives weight and bias a block each, we one together."""
    theirs, fit, x = both(name, structure, bias=bias)
    mean, covariance = theirs._glm_predictive_distribution(x)
    part = next(functional_distribution(fit.model, fit.guide, as_batches((x,))))
    torch.testing.assert_close(part.mean, mean.detach(), rtol=1e-5, atol=1e-6)
    error = (part.covariance - covariance.detach()).norm() / covariance.norm()
    assert error < 1e-4
    np.testing.assert_allclose(
        predict(fit, x, link="probit").functional_variance,
        covariance.detach().diagonal(dim1=1, dim2=2),
        rtol=1e-4,
    )


@pytest.mark.parametrize("link", ["probit", "bridge", "bridge_norm"])
@pytest.mark.parametrize(("name", "structure"), [("mlp", "full"), ("lenet", "diag")])
def test_class_probabilities_in_closed_form_are_those_of_laplace_torch(link, name, structure):
    theirs, fit, x = both(name, structure, bias=True)
    found = predict(fit, x, link=link).mean
    np.testing.assert_allclose(found, theirs(x, link_approx=link).detach(), atol=1e-4)


def test_sampled_softmax_is_that_of_laplace_torch_within_its_standard_error():
    theirs, fit, x = both("mlp", "full", bias=True)
    torch.manual_seed(1)
    mean, covariance = theirs._glm_predictive_distribution(x)
    draws = theirs._glm_predictive_samples(mean, covariance, n_samples=20_000).detach().numpy()
    found = predict(fit, x, num_samples=4000)
    assert (abs(found.mean - draws.mean(0)) < 5 * draws.std(0) * (1 / 4000 + 1 / 20_000) ** 0.5).all()
