"""The Laplace evidence against laplace-torch's, diagonal, full and Kronecker-factored, under several priors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, log_marginal_likelihood, tune_prior
from wiu_pyro.nn import BayesianNetwork, Normal

GUIDES = {"diag": AutoDiagonalLaplace, "full": AutoFullLaplace, "kron": AutoKFACLaplace}
PRECISION = 1.7

pytestmark = [
    pytest.mark.slow,
    # BackPACK's hooks on a first layer, whose input needs no gradient
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    # laplace-torch's, on predictions that are not made here
    pytest.mark.filterwarnings("ignore:By default `link_approx` is:UserWarning"),
]


def both(structure: str, likelihood: str = "categorical"):
    """laplace-torch's Laplace and ours, of one network; without biases, which it gives a block of their own."""
    from laplace import Laplace
    from laplace.curvature import BackPackGGN

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    x = torch.randn(20, 4)
    y = torch.arange(20) % 3 if likelihood == "categorical" else torch.randn(20, 3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=20)
    options = {} if likelihood == "categorical" else {"sigma_noise": 0.4}
    theirs = Laplace(
        copy.deepcopy(net),
        "classification" if likelihood == "categorical" else "regression",
        subset_of_weights="all",
        hessian_structure=structure,
        prior_precision=PRECISION,
        backend=BackPackGGN,
        **options,
    )
    theirs.fit(loader)
    noise = {} if likelihood == "categorical" else {"noise_scale": 0.4}
    model = BayesianNetwork(net, Normal(PRECISION**-0.5), likelihood=likelihood, num_data=20, **noise)
    return theirs, wiu.fit(model, GUIDES[structure](model), (x, y), epochs=0).guide


@pytest.mark.parametrize("structure", GUIDES)
@pytest.mark.parametrize("likelihood", ["categorical", "normal"])
def test_evidence_is_that_of_laplace_torch_under_every_prior(structure, likelihood):
    theirs, ours = both(structure, likelihood)
    for scale in (0.3, 1.0, 2.5):
        expected = theirs.log_marginal_likelihood(prior_precision=torch.tensor(PRECISION / scale**2))
        assert log_marginal_likelihood(ours, scale).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:The posterior's prior is the model's with:UserWarning")
@pytest.mark.parametrize("structure", GUIDES)
def test_tuned_prior_is_that_of_laplace_torch(structure):
    theirs, ours = both(structure)
    theirs.optimize_prior_precision(method="marglik", n_steps=400, lr=0.05, pred_type="glm")
    scale = tune_prior(ours).prior_record.groups["network"]
    assert PRECISION / scale**2 == pytest.approx(theirs.prior_precision.item(), rel=1e-2)
