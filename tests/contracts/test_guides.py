"""Every guide in ``__all__`` keeps the contract; so do Pyro's own where the toolkit promises it."""

from __future__ import annotations

import warnings

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from pyro.infer.autoguide import AutoGuide
from torch import nn

from wiu_pyro import guides
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoBlockNormal, AutoMeanField, AutoSubnetworkLaplace, closed_form, init_to_network
from wiu_pyro.nn import BayesianNetwork
from wiu_pyro.testing import check_guide, linear_gaussian, small_classifier

# what laplace_approximation returns, and the base of what has it: checked through the Laplace guides
NOT_ALONE = {"AutoBlockNormal", "LaplaceGuide"}
GUIDES = [
    name
    for name in guides.__all__
    if isinstance(getattr(guides, name), type)
    and issubclass(getattr(guides, name), AutoGuide)
    and name not in NOT_ALONE
]

pytestmark = pytest.mark.slow


def at_network(guide_class):
    """Pyro's guides start at zero, the saddle of a network, unless told where."""
    return lambda model: guide_class(model, init_loc_fn=init_to_network(model))


def binary(dropout=0.0):
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    net = nn.Sequential(nn.Dropout(dropout), nn.Linear(4, 2)) if dropout else nn.Linear(4, 2)
    return BayesianNetwork(net, likelihood="bernoulli", num_data=16), (x, (x[:, :2] > 0).float())


def regression(dropout=0.0):
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Dropout(dropout), nn.Linear(3, 1))
    model = BayesianNetwork(net, likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5), num_data=16)
    return model, (x, x.sum(1, keepdim=True))


def convolutions(dropout=0.0):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.Flatten()
    ).append(nn.Linear(32, 3))
    return BayesianNetwork(net.eval(), num_data=12), (torch.rand(12, 1, 4, 4), torch.arange(12) % 3)


PROBLEMS = {"classifier": small_classifier, "binary": binary, "regression": regression, "convolutions": convolutions}


@pytest.mark.filterwarnings("ignore:.* get their exact diagonal:UserWarning")  # BatchNorm beside Kronecker factors
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", GUIDES)
def test_guide_keeps_the_contract(name, problem):
    guide_class = getattr(guides, name)
    # a network without dropout has no Monte Carlo dropout: such a guide gets the same problems with it
    model, data = PROBLEMS[problem](dropout=0.25 if getattr(guide_class, "needs_dropout", False) else 0.0)
    check_guide(guide_class, model=model, data=data)


def test_all_guides_are_looked_at():
    assert {"AutoMeanField", "AutoDiagonalLaplace", "AutoKFACLaplace", "AutoFullLaplace"} <= set(GUIDES)
    assert {"AutoEKFACLaplace", "AutoLastLayerLaplace", "AutoSubnetworkLaplace", "AutoLaplace"} <= set(GUIDES)


@pytest.mark.parametrize(
    ("guide_class", "structure"),
    [(autoguide.AutoNormal, "mean-field"), (autoguide.AutoLowRankMultivariateNormal, "low-rank")],
)
def test_pyros_guide_keeps_the_contract_and_has_a_closed_form(guide_class, structure):
    fit = check_guide(at_network(guide_class))
    closed = closed_form(fit.guide, fit.structure)
    assert set(closed.layer_structure.values()) == {structure}


def test_pyros_laplace_keeps_the_contract_and_has_a_closed_form():
    problem = linear_gaussian(dtype=torch.float32)  # a quadratic, so that its Hessian is positive definite anywhere
    fit = check_guide(at_network(autoguide.AutoLaplaceApproximation), model=problem.model, data=problem.data)
    closed = closed_form(fit.guide, fit.structure)
    sd = torch.cat([closed.sd[name].reshape(-1) for name in ("weight", "bias")]).double()
    torch.testing.assert_close(sd, problem.covariance.diagonal().sqrt(), rtol=1e-4, atol=1e-6)


class WrongMoments(AutoMeanField):
    """Says another scale than it draws from."""

    def _loc_scale(self, *args, **kwargs):
        loc, scale = super()._loc_scale()
        return loc, 2 * scale


class NoDensity(AutoMeanField):
    def log_prob(self, weights):
        return torch.tensor(float("nan"))


class Unseeded(AutoMeanField):
    """Draws from a generator of its own, which no seed reaches."""

    generator = torch.Generator().manual_seed(0)

    def forward(self, *args, **kwargs):
        values = super().forward(*args, **kwargs)
        return {name: value + torch.rand((), generator=self.generator) for name, value in values.items()}


class Truncated(AutoMeanField):
    """Leaves a site out of what it returns."""

    def forward(self, *args, **kwargs):
        return dict(list(super().forward(*args, **kwargs).items())[1:])


class RestlessPosterior(AutoBlockNormal):
    def forward(self, *args, **kwargs):
        return {name: value + torch.randn(()) for name, value in super().forward(*args, **kwargs).items()}


class Restless(AutoSubnetworkLaplace):
    """Says that weights are held, and moves them."""

    def laplace_approximation(self, *args, **kwargs):
        posterior = super().laplace_approximation(*args, **kwargs)
        posterior.__class__ = RestlessPosterior
        return posterior


@pytest.mark.parametrize(
    "options",
    [
        {"structure": {"0": "full"}},
        {"structure": {"2": "ekfac"}},
        {"structure": {"0": "diagonal", "2": "kfac"}},
    ],
)
def test_mixed_structures_and_layers_at_their_point_estimate_keep_the_contract(options):
    check_guide(guides.AutoLaplace, **options)


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_subnetworks_keep_the_contract(structure):
    check_guide(AutoSubnetworkLaplace, fraction=0.3, structure=structure)


@pytest.mark.parametrize(
    ("guide_class", "message"),
    [
        (WrongMoments, "standard errors off its closed form"),
        (NoDensity, r"has log densities \[nan, nan, nan\] of its own draws"),
        (Restless, "moves weights of '0.weight' whose sd is 0"),
        (Unseeded, "gives other draws with the same seed"),
        (Truncated, "draws no value for site '0.weight'"),
        (lambda model: nn.Linear(2, 2), "is not a Pyro AutoGuide"),
    ],
)
def test_contract_catches_a_guide_that_breaks_it(guide_class, message):
    with pytest.raises(GuideError, match=f"breaks the contract: it .*{message}"):
        check_guide(guide_class)


def test_contract_leaves_no_warnings_behind():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_guide(AutoMeanField)
