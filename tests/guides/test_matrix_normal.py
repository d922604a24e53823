"""Matrix-variate Normals against dense Kronecker products, draws, and a posterior that is one."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import wiu_pyro as wiu
from tests.guides.models import Hierarchical, PositiveWeights
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.guides import AutoMatrixNormal, closed_form
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier


def images(num: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num, 2, 4, 4, generator=generator), torch.arange(num) % 3


def convolutions() -> BayesianNetwork:
    """A grouped convolution, a normalisation, a Linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    return BayesianNetwork(net, {"0.weight": Normal(0.4, loc=0.1), "*": Normal(0.8)}, num_data=12)


def ready(model, data, *, seed: int = 0, **options) -> AutoMatrixNormal:
    """Return a guide away from its start, so that no term of the KL is zero."""
    guide = AutoMatrixNormal(model, **options)
    guide.setup(data)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return guide


def dense(guide: AutoMatrixNormal) -> torch.distributions.MultivariateNormal:
    """Return the Gaussian with its covariance written out, from the factors' parameters by hand."""
    covariance = torch.zeros(guide.latent_dim, guide.latent_dim, dtype=torch.float64)
    covariance[guide.free_index, guide.free_index] = (2 * guide.log_scale.detach().double()).exp()
    places = {name: torch.arange(guide.latent_dim)[place].view(shape) for name, place, shape in guide.sites()}
    layers = {layer.name: layer for layer in guide.structure.layers}
    for name, factors, _ in guide._parts():
        sites, groups = layers[name].sites, factors.matrix_shape[0]
        columns = [places[site].view(groups, -1, places[site][0].numel()) for site in sites.values()]
        matrix = torch.cat(columns, -1)  # (groups, out, in [+ 1])
        for group in range(groups):
            both = [gram(root, group) for root in (factors.rows, factors.columns)]
            index = matrix[group].reshape(-1)
            covariance[index[:, None], index] = torch.kron(*both)
    return torch.distributions.MultivariateNormal(guide.loc.detach().double(), covariance)


def gram(root, group: int) -> torch.Tensor:
    scale = root.log_scale[group].detach().double().exp()
    lower = torch.zeros(len(scale), len(scale)) if root.lower is None else root.lower[group].detach()
    matrix = scale.diag() @ (torch.eye(len(scale)) + lower.tril(-1)).double()
    return matrix @ matrix.mT


def prior_of(guide: AutoMatrixNormal) -> torch.distributions.Distribution:
    prior = guide.flat_prior()
    return torch.distributions.MultivariateNormal(prior.loc.double(), prior.scale.double().square().diag())


def exact(problem, **options) -> AutoMatrixNormal:
    """Return the guide put at a linear-Gaussian network's posterior: outputs alike and independent, I ⊗ V."""
    guide = AutoMatrixNormal(problem.model, **options)
    guide.setup(problem.data)
    out, in_ = problem.mean["weight"].shape
    first = [*range(in_), out * in_]  # weights and bias of the first output
    root = torch.linalg.cholesky(problem.covariance[first][:, first])
    factors = next(iter(guide.scale_factors.values()))
    with torch.no_grad():
        guide.loc.copy_(guide.pack(problem.mean))
        factors.columns.log_scale.copy_(root.diagonal().log())
        factors.columns.lower.copy_(root / root.diagonal()[:, None])
    return guide


class ByHand(nn.Module):
    """A layer whose weight is multiplied in its own way, so that it has to be drawn; weight and bias go together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.fc.weight.mT + self.fc.bias


CASES = {
    "by hand": (lambda: BayesianNetwork(ByHand(), num_data=24), lambda: small_classifier()[1]),
    "linear": (lambda: small_classifier()[0], lambda: small_classifier()[1]),
    "convolutions": (convolutions, images),
}


@pytest.mark.parametrize("options", [{}, {"factors": "diagonal"}, {"widest": 4}], ids=["cholesky", "diagonal", "mixed"])
@pytest.mark.parametrize("case", CASES)
def test_kl_density_and_moments_are_those_of_the_dense_gaussian(case, options):
    make, data = CASES[case]
    guide = ready(make(), data(), **options)
    reference = dense(guide)
    expected = torch.distributions.kl_divergence(reference, prior_of(guide))
    assert guide.kl_divergence().item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        draw = guide(*data())
        torch.testing.assert_close(
            guide.log_prob(draw), reference.log_prob(guide.pack(draw).double()), rtol=1e-4, atol=1e-3
        )
    found = closed_form(guide, guide.structure)
    covariance = reference.covariance_matrix
    conditional = torch.linalg.inv(covariance).diagonal().rsqrt()
    for name, place, shape in guide.sites():
        torch.testing.assert_close(found.sd[name], covariance.diagonal()[place].sqrt().view(shape).float())
        torch.testing.assert_close(
            found.sd_conditional[name], conditional[place].view(shape).float(), rtol=1e-4, atol=0
        )
    assert found.kl_total == pytest.approx(expected.item(), rel=1e-4)
    assert found.factorised == (options.get("factors") == "diagonal")


def test_kl_is_the_mean_of_log_q_less_log_prior_over_draws():
    guide = ready(convolutions(), images())
    torch.manual_seed(0)
    with torch.no_grad():
        draws = guide.get_posterior().rsample((4000,))
        terms = guide.get_posterior().log_prob(draws) - prior_of(guide).log_prob(draws.double())
    assert abs(terms.mean() - guide.kl_divergence()) < 4 * terms.std() / len(terms) ** 0.5


def test_draws_have_the_covariance_of_the_dense_gaussian():
    guide = ready(small_classifier()[0], small_classifier()[1])
    reference = dense(guide)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = guide.get_posterior().rsample((20_000,)).double()
    covariance, sd = reference.covariance_matrix, reference.covariance_matrix.diagonal().sqrt()
    standardised = (torch.cov(draws.T) - covariance) / sd.outer(sd)
    # a covariance of standard Normals over n draws: se at most √(2 / n)
    assert standardised.abs().max() < 5 * (2 / len(draws)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_local_estimator_has_the_expectation_of_one_draw_of_the_weights(case):
    make, data = CASES[case]
    found = {}
    for estimator in ("local", "reparam"):
        guide = ready(make(), data(), estimator=estimator)
        torch.manual_seed(0)
        with torch.no_grad():
            losses = torch.stack([guide.negative_elbo(*data()) for _ in range(500)])
        found[estimator] = losses.mean(), losses.var() / len(losses)
    (one, error), (two, other) = found.values()
    assert abs(one - two) < 4 * (error + other) ** 0.5
    if case != "by hand":  # of halves or of data, not of the batch
        assert error < other


@pytest.mark.parametrize("estimator", ["local", "reparam"])
def test_at_a_matrix_normal_posterior_the_kl_is_its_own_and_elbo_the_evidence(estimator):
    problem = linear_gaussian()
    guide = exact(problem, estimator=estimator)
    assert guide.kl_divergence().item() == pytest.approx(problem.kl, rel=1e-9)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = torch.stack([guide.negative_elbo(*problem.data) for _ in range(400)])
    assert abs(losses.mean() + problem.log_evidence) < 4 * losses.std() / len(losses) ** 0.5


def test_at_a_matrix_normal_posterior_the_gradient_is_zero_in_expectation():
    problem = linear_gaussian()
    guide = exact(problem)
    torch.manual_seed(0)
    parameters, draws = [value for value in guide.parameters() if value.numel()], []
    for _ in range(400):
        grads = torch.autograd.grad(guide.negative_elbo(*problem.data), parameters)
        draws.append(torch.cat([grad.reshape(-1) for grad in grads]))
    found = torch.stack(draws)
    assert (found.mean(0).abs() / (found.std(0) / len(found) ** 0.5 + 1e-9)).max() < 4.5


@pytest.mark.training
@pytest.mark.slow
def test_training_finds_a_linear_gaussian_posterior():
    problem = linear_gaussian(dtype=torch.float32)
    guide = AutoMatrixNormal(problem.model)
    wiu.fit(problem.model, guide, problem.data, epochs=1500, batch_size=30, learning_rate=0.01)
    covariance = dense(guide).covariance_matrix
    sd, true = covariance.diagonal().sqrt(), problem.covariance.diagonal().sqrt()
    torch.testing.assert_close(sd, true, rtol=0.1, atol=0)
    torch.testing.assert_close(covariance / sd.outer(sd), problem.covariance / true.outer(true), rtol=0, atol=0.1)
    assert guide.kl_divergence().item() == pytest.approx(problem.kl, rel=0.02)


def test_layers_are_called_what_they_are():
    guide = ready(convolutions(), images(), widest=10)
    found = closed_form(guide, guide.structure)
    assert found.layer_structure == {
        "0": "matrix-normal",
        "1": "mean-field",
        "4": "matrix-normal (diagonal columns)",
    }
    assert sum(found.layer_kl.values()) == pytest.approx(found.kl_total)


def test_start_is_the_networks_own_weights_with_a_small_scale():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model = BayesianNetwork(net, FanInNormal(), num_data=24)
    guide = AutoMatrixNormal(model, init_scale=0.01)
    guide.setup(small_classifier()[1])
    found = guide.unpack(guide.loc)
    assert all(torch.equal(found[name], value) for name, value in net.named_parameters())
    torch.testing.assert_close(guide.variance().sqrt(), 0.01 * guide.flat_prior().scale)


@pytest.mark.slow
@pytest.mark.parametrize("make", [PositiveWeights, lambda: BayesianNetwork(nn.Linear(4, 3), Laplace(0.5), num_data=24)])
def test_prior_that_is_not_normal_enters_by_draws(make):
    data = small_classifier()[1]
    guide = ready(make(), data)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([guide.kl_divergence() for _ in range(500)])
        draws = guide.get_posterior().rsample((4000,))
        terms = dense(guide).log_prob(draws.double()) - torch.stack([guide.log_prior(draw) for draw in draws])
    error = (found.var() / len(found) + terms.var() / len(terms)) ** 0.5
    assert abs(found.mean() - terms.mean()) < 4 * error


def test_noise_scale_with_a_prior_is_an_independent_normal():
    torch.manual_seed(0)
    model = BayesianNetwork(nn.Linear(4, 1), likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5), num_data=24)
    x = small_classifier()[1][0]
    guide = ready(model, (x, x[:, 0]))
    assert len(guide.log_scale) == 1
    reference = dense(guide)
    torch.testing.assert_close(guide.variance().double(), reference.covariance_matrix.diagonal(), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_pyros_svi_lowers_the_loss():
    model, data = small_classifier()
    guide = AutoMatrixNormal(model)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(*data) for _ in range(200)]
    assert sum(losses[-50:]) < sum(losses[:50])
    assert guide.scale_factors["layer_0"].rows.lower.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": "choleski"}, "'choleski' is unknown here. Did you mean 'cholesky'"),
        ({"estimator": "locl"}, "'locl' is unknown here. Did you mean 'local'"),
        ({"init_scale": 0.0}, "init_scale must be positive, but is 0.0"),
        ({"widest": -1}, "widest must be 0 or more, but is -1"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(GuideError, match=message):
        AutoMatrixNormal(small_classifier()[0], **options)


def test_prior_that_depends_on_another_site_is_refused():
    data = small_classifier()[1]
    guide = AutoMatrixNormal(Hierarchical())
    guide.setup(data)
    with pytest.raises(PriorError, match="prior of 'fc.weight' depends on another site.*use AutoMeanField"):
        guide.negative_elbo(*data)
