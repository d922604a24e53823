"""Effect handlers around Pyro's own inference: the same −ELBO, less noise, and no change to model or guide."""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

from wiu_pyro.errors import ModelError
from wiu_pyro.guides import AutoMeanField, flipout, local_reparameterization, reparameterization
from wiu_pyro.guides.weight_draw import WeightDraw
from wiu_pyro.nn import BayesianNetwork, Laplace

HANDLERS = {
    "local": local_reparameterization,
    "antithetic": lambda: local_reparameterization(antithetic=True),
    "flipout": flipout,
    "reparam": reparameterization,
}
GUIDES = {"AutoNormal": AutoNormal, "AutoDiagonalNormal": AutoDiagonalNormal, "AutoMeanField": AutoMeanField}
ELBOS = {"TraceMeanField_ELBO": TraceMeanField_ELBO, "Trace_ELBO": Trace_ELBO}
X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)


class Regression(PyroModule):
    """A network as Pyro's tutorials write them: modules, `PyroSample` weights, a noise scale with a prior."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = PyroModule[nn.Linear](3, 4)
        self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 3]).to_event(2))
        self.hidden.bias = PyroSample(dist.Normal(0.0, 10.0).expand([4]).to_event(1))
        self.out = PyroModule[nn.Linear](4, 1)
        self.out.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2))
        self.out.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        mean = self.out(self.hidden(x).tanh()).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def ready(name: str, model, y: torch.Tensor = Y) -> pyro.infer.autoguide.AutoGuide:
    torch.manual_seed(0)
    guide = GUIDES[name](model, init_scale=0.3)
    guide(X, y)
    return guide


def losses(elbo, model, guide, *, handler, num: int = 150) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad(), handler:
        return torch.tensor([elbo.loss(model, guide, X, Y) for _ in range(num)])


@functools.cache
def without_handler(guide: str, elbo: str) -> tuple[Regression, pyro.infer.autoguide.AutoGuide, torch.Tensor]:
    model = Regression()
    made = ready(guide, model)
    return model, made, losses(ELBOS[elbo](), model, made, handler=poutine.block(hide=[]))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    error = (one.var() / len(one) + other.var() / len(other)).sqrt()
    return ((one.mean() - other.mean()).abs() / error).item()


@pytest.mark.slow
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("guide", GUIDES)
def test_expectation_is_that_without_the_handler(guide, elbo, handler):
    model, guide, plain = without_handler(guide, elbo)
    handled = losses(ELBOS[elbo](), model, guide, handler=HANDLERS[handler]())
    assert apart(plain, handled) < 5


@pytest.mark.slow
@pytest.mark.parametrize("handler", [name for name in HANDLERS if name != "reparam"])
def test_handler_leaves_less_noise(handler):
    model = BayesianNetwork(nn.Linear(3, 2), likelihood="normal", noise_scale=1.0, num_data=20)
    guide = ready("AutoNormal", model, Y[:, None].expand(20, 2))
    found = []
    for one in (poutine.block(hide=[]), HANDLERS[handler]()):
        torch.manual_seed(0)
        with torch.no_grad(), one:
            elbo = TraceMeanField_ELBO()
            found.append(torch.tensor([elbo.loss(model, guide, X, Y[:, None].expand(20, 2)) for _ in range(150)]))
    assert found[1].var() < 0.9 * found[0].var()


@pytest.mark.slow
@pytest.mark.parametrize("elbo", ELBOS)
def test_handler_around_the_guide_alone_keeps_the_expectation(elbo):
    model = Regression()
    guide = ready("AutoDiagonalNormal", model)
    plain = losses(ELBOS[elbo](), model, guide, handler=poutine.block(hide=[]))
    handled = losses(ELBOS[elbo](), model, local_reparameterization()(guide), handler=poutine.block(hide=[]))
    assert apart(plain, handled) < 5


@pytest.mark.slow
def test_prior_that_is_not_normal_is_taken_by_draws():
    model = BayesianNetwork(nn.Linear(3, 2), Laplace(0.5), num_data=20)
    guide = ready("AutoNormal", model)
    elbo = TraceMeanField_ELBO()
    torch.manual_seed(0)
    found = []
    for handler in (poutine.block(hide=[]), local_reparameterization()):
        with torch.no_grad(), handler:
            found.append(torch.tensor([elbo.loss(model, guide, X, (Y > 0).long()) for _ in range(150)]))
    assert apart(*found) < 5


@pytest.mark.parametrize("elbo", ELBOS)
def test_kl_has_no_noise_left(elbo):
    model = BayesianNetwork(nn.Linear(3, 2), num_data=20)
    guide = ready("AutoMeanField", model)
    without_data = poutine.block(model, hide=["obs"])
    with torch.no_grad(), local_reparameterization():
        found = [ELBOS[elbo]().loss(without_data, guide, X, (Y > 0).long()) for _ in range(2)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0] == pytest.approx(guide.kl_divergence().item(), rel=1e-5)


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_poutine_scale_multiplies_the_kl(elbo, factor):
    model = BayesianNetwork(nn.Linear(3, 2), num_data=20)
    guide = ready("AutoNormal", model)
    without_data = poutine.block(model, hide=["obs"])
    with torch.no_grad(), local_reparameterization():
        once = ELBOS[elbo]().loss(without_data, guide, X, (Y > 0).long())
        scaled = poutine.scale(without_data, scale=factor), poutine.scale(guide, scale=factor)
        assert ELBOS[elbo]().loss(*scaled, X, (Y > 0).long()) == pytest.approx(factor * once, rel=1e-4)


@pytest.mark.slow
def test_scale_of_the_prior_alone_is_taken_as_pyro_takes_it():
    model = Regression()
    guide = ready("AutoNormal", model)
    scaled = poutine.scale(model, scale=0.5)
    plain = losses(Trace_ELBO(), scaled, guide, handler=poutine.block(hide=[]), num=250)
    handled = losses(Trace_ELBO(), scaled, guide, handler=local_reparameterization(), num=250)
    assert apart(plain, handled) < 5


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_gradients_have_the_expectation_without_the_handler(guide):
    model = Regression()
    guide = ready(guide, model)
    parameters = list(guide.parameters())

    def gradients(handler, num: int = 150) -> torch.Tensor:
        torch.manual_seed(1)
        found = []
        with poutine.block(), handler:
            for _ in range(num):
                loss = TraceMeanField_ELBO().differentiable_loss(model, guide, X, Y)
                found.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters)]))
        return torch.stack(found)

    plain, handled = gradients(poutine.block(hide=[])), gradients(local_reparameterization())
    error = (plain.var(0) / len(plain) + handled.var(0) / len(handled)).sqrt()
    assert ((plain.mean(0) - handled.mean(0)).abs() < 5.5 * error + 1e-6).all()


@pytest.mark.training
@pytest.mark.parametrize("guide", GUIDES)
def test_tutorial_network_trains_with_the_handler_added_and_nothing_else(guide):
    """Validation stays on, as Pyro has it; draws for predictions are plain afterwards."""
    pyro.set_rng_seed(0)
    model = Regression()
    guide = GUIDES[guide](model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), loss=Trace_ELBO())
    with local_reparameterization():
        found = [svi.step(X, Y) for _ in range(150)]
    assert sum(found[-20:]) < 0.7 * sum(found[:20])
    draws = Predictive(model, guide=guide, num_samples=7)(X)
    assert type(draws["hidden.weight"]) is torch.Tensor
    assert draws["obs"].shape == (7, 20)


def test_guide_outside_of_a_handler_gives_plain_draws():
    guide = ready("AutoMeanField", Regression())
    with local_reparameterization():
        inside = guide(X, Y)
    outside = guide(X, Y)
    assert isinstance(inside["hidden.weight"], WeightDraw)
    assert all(type(value) is torch.Tensor for value in outside.values())


@pytest.mark.slow
def test_guide_with_a_full_covariance_is_left_alone():
    model = Regression()
    guide = AutoMultivariateNormal(model)
    guide(X, Y)
    elbo = Trace_ELBO()
    found = []
    for handler in (poutine.block(hide=[]), local_reparameterization()):
        torch.manual_seed(0)
        with torch.no_grad(), handler:
            found.append(elbo.loss(model, guide, X, Y))
    assert found[0] == found[1]


def test_vectorised_particles_are_left_alone():
    model = BayesianNetwork(nn.Linear(3, 2), num_data=20)
    guide = ready("AutoNormal", model)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    found = []
    for handler in (poutine.block(hide=[]), local_reparameterization()):
        torch.manual_seed(0)
        with torch.no_grad(), handler:
            found.append(elbo.loss(model, guide, X, (Y > 0).long()))
    assert found[0] == found[1]


class Twice(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.fc = PyroModule[nn.Linear](3, 3)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 3]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        mean = self.fc(self.fc(x)).sum(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)
        return mean


def test_layer_used_twice_is_refused_and_one_draw_takes_it():
    model = Twice()
    guide = ready("AutoNormal", model)
    with local_reparameterization(), pytest.raises(ModelError, match=r"used twice.*reparameterization\(\)"):
        Trace_ELBO().loss(model, guide, X, Y)
    with reparameterization():
        assert torch.tensor(Trace_ELBO().loss(model, guide, X, Y)).isfinite()
