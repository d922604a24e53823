"""What the toolkit's guides share: their flat vector, their start, and the objective of a point estimate."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from tests.guides.models import Hierarchical
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField, init_to_network
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal, ScaleMixtureNormal
from wiu_pyro.testing import small_classifier

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
PRIORS = [
    FanInNormal(),
    Laplace(0.5),
    ScaleMixtureNormal(1.0, 0.1),
    {"weight": Normal(0.2, loc=0.5), "bias": Laplace()},
]


@pytest.mark.parametrize("model", ["mnist_mlp", BayesianNetwork, 3])
def test_guide_of_what_is_no_model_is_refused(model):
    with pytest.raises(GuideError, match="A guide is made for a Pyro model, but this is (a str|the class Bay|an int)"):
        AutoMeanField(model)


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
@pytest.mark.parametrize("prior", PRIORS)
def test_objective_of_a_point_estimate_is_pyros_exactly(guide_class, prior):
    model = BayesianNetwork(nn.Linear(4, 3), prior, num_data=80)
    guide = guide_class(model)
    guide.setup((X, Y))
    with torch.no_grad(), poutine.block():
        expected = Trace_ELBO().loss(model, guide, X, Y)
        assert guide.negative_elbo(X, Y).item() == pytest.approx(expected, rel=1e-5)


def test_objective_with_a_noise_scale_is_pyros_exactly():
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=dist.LogNormal(0.3, 0.5), num_data=16)
    guide = AutoKFACLaplace(model)
    guide.setup((X, X[:, 0]))
    with torch.no_grad(), poutine.block():
        guide.loc.add_(0.1)
        expected = Trace_ELBO().loss(model, guide, X, X[:, 0])
        assert guide.negative_elbo(X, X[:, 0]).item() == pytest.approx(expected, rel=1e-5)


def test_loss_offset_is_the_part_of_the_objective_that_units_decide():
    """Rescaling weights with their priors moves the loss by the change of the offset, and by nothing else."""
    found = []
    for factor in (1.0, 10.0):
        net = nn.Linear(4, 3)
        with torch.no_grad():
            net.weight.copy_(torch.linspace(-1, 1, 12).view(3, 4) * factor)
            net.bias.zero_()
        model = BayesianNetwork(net, {"weight": Normal(0.7 * factor), "bias": Normal(1.0)}, num_data=8)
        guide = AutoKFACLaplace(model)
        guide.setup((X / factor, Y))
        found.append(guide.negative_elbo(X / factor, Y).item() - guide.loss_offset())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_point_estimate_refuses_a_prior_that_depends_on_another_site():
    guide = AutoKFACLaplace(Hierarchical())
    guide.setup((X, Y))
    with pytest.raises(PriorError, match="the prior of 'fc.weight' depends on another site"):
        guide.negative_elbo(X, Y)


@pytest.mark.parametrize("guide_class", [AutoMeanField, AutoKFACLaplace])
def test_unpack_undoes_pack(guide_class):
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", num_data=8)
    guide = guide_class(model)
    guide.setup((X, X[:, 0]))
    flat = torch.randn(6)
    values = guide.unpack(flat)
    assert values["noise_scale"] > 0
    torch.testing.assert_close(guide.pack(values), flat)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": torch.zeros(3, 4)}, "'bias' is missing"),
        (
            {"weight": torch.zeros(4, 3), "bias": torch.zeros(3)},
            r"'weight' needs a value of shape \(3, 4\), .* \(4, 3\)",
        ),
    ],
)
def test_start_that_does_not_fit_is_refused(values, message):
    guide = AutoMeanField(BayesianNetwork(nn.Linear(4, 3)))
    guide.setup((X, Y))
    with pytest.raises(GuideError, match=message):
        guide.start_at(values)


def test_guide_without_data_says_what_to_do():
    with pytest.raises(GuideError, match="AutoMeanField has not seen any data yet. Fit it, or call guide.setup"):
        AutoMeanField(BayesianNetwork(nn.Linear(4, 3))).sites()


def test_pyros_own_guide_starts_at_the_network_too():
    model, data = small_classifier()
    guide = AutoNormal(model, init_loc_fn=init_to_network(model))
    with poutine.block():
        guide(*data)
    values = dict(model.net.named_buffers())
    assert all(torch.equal(value, values[name]) for name, value in guide.median().items())


def test_site_without_a_weight_in_the_network_starts_near_its_prior_mean():
    guide = AutoMeanField(Hierarchical())
    guide.setup((X, Y))
    values = guide.unpack(guide.loc)
    assert values["fc.weight"].abs().max() > 0  # not the saddle at zero
    assert values["fc.weight"].abs().max() < 5 * 4**-0.5
    assert values["prior_scale"] > 0


def test_setting_up_leaves_the_running_statistics_of_a_trained_network():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model = BayesianNetwork(net, num_data=8).train()
    AutoMeanField(model).setup((X + 3, Y))
    assert torch.equal(model.net[1].running_mean, torch.zeros(5))
    assert model.net[1].training


class Dense(NetworkGuide):
    """The least a new guide needs: parameters, and a posterior over the flat vector."""

    def _setup_prototype(self, *args, **kwargs):
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        generator = torch.Generator().manual_seed(0)
        self.root = nn.Parameter(0.2 * torch.randn(self.latent_dim, self.latent_dim, generator=generator))

    def get_posterior(self, *args, **kwargs):
        covariance = self.root @ self.root.mT + 0.01 * torch.eye(self.latent_dim)
        return dist.MultivariateNormal(self.loc, covariance)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [FanInNormal(), {"weight": Laplace(0.5), "bias": Normal(2.0)}])
def test_objective_of_a_guide_that_has_only_a_posterior_is_pyros_in_expectation(prior):
    model = BayesianNetwork(nn.Linear(4, 3), prior, num_data=80)
    guide = Dense(model)
    guide.setup((X, Y))
    with torch.no_grad(), poutine.block():
        torch.manual_seed(0)
        own = torch.tensor([guide.negative_elbo(X, Y).item() for _ in range(400)])
        pyros = torch.tensor([Trace_ELBO().loss(model, guide, X, Y) for _ in range(400)])
    assert abs(own.mean() - pyros.mean()) < 5 * ((own.var() + pyros.var()) / 400).sqrt()


def test_guide_that_has_only_a_posterior_refuses_a_prior_that_depends_on_another_site():
    guide = Dense(Hierarchical())
    guide.setup((X, Y))
    with pytest.raises(PriorError, match="Dense needs priors that depend on nothing else"):
        guide.negative_elbo(X, Y)


class ByDraw(AutoMeanField):
    """Has no KL of its own: the objective every guide inherits."""

    negative_elbo = NetworkGuide.negative_elbo


def test_kl_weight_and_temperature_multiply_the_kl_of_the_inherited_objective():
    model, data = small_classifier()

    def loss(kl_weight: float, temperature: float) -> float:
        guide = ByDraw(model, temperature=temperature)
        guide.setup(data)
        torch.manual_seed(0)
        return guide.negative_elbo(*data, kl_weight=kl_weight).item()

    without, once = loss(0.0, 1.0), loss(1.0, 1.0)
    assert once != pytest.approx(without)
    for found in (loss(3.0, 1.0), loss(1.0, 3.0)):
        assert found == pytest.approx(without + 3 * (once - without), rel=1e-5)
