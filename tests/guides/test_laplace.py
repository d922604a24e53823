"""Laplace guides where they must be exact, and what they refuse."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import functional_call

import wiu_pyro as wiu
from tests.guides.models import Hierarchical
from wiu_pyro.errors import CostError, CurvatureError, DataError, GuideError, ModelError, PriorError
from wiu_pyro.guides import (
    AutoBlockDiagonalLaplace,
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoLastLayerLaplace,
    AutoSubnetworkLaplace,
    closed_form,
)
from wiu_pyro.nn import BayesianNetwork, FanInNormal, Laplace, Normal, ScaleMixtureNormal, as_batches
from wiu_pyro.testing import linear_gaussian, small_classifier

GUIDES = (AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace)
F64 = torch.float64


def flat(values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([values[name].reshape(-1) for name in ("weight", "bias")])


def at_the_mode(guide_class, problem, **options):
    guide = guide_class(problem.model, **options)
    fit = wiu.fit(problem.model, guide, problem.data, epochs=0, start=problem.mean)
    return fit, closed_form(fit.guide, fit.structure)


@pytest.mark.parametrize("guide_class", [AutoKFACLaplace, AutoFullLaplace])
@pytest.mark.parametrize("outputs", [1, 3])
def test_kfac_and_full_laplace_of_a_linear_gaussian_network_are_its_posterior(guide_class, outputs):
    problem = linear_gaussian(out_features=outputs)
    fit, closed = at_the_mode(guide_class, problem)
    sd = problem.covariance.diagonal().sqrt()
    torch.testing.assert_close(flat(closed.sd), sd)
    precision = torch.linalg.inv(problem.covariance)
    torch.testing.assert_close(flat(closed.sd_conditional), precision.diagonal().rsqrt())
    assert closed.kl_total == pytest.approx(problem.kl, rel=1e-9)
    draws = fit.guide.get_posterior()
    value = draws.mean + torch.randn(len(sd), dtype=F64)
    exact = torch.distributions.MultivariateNormal(flat(problem.mean), problem.covariance)
    torch.testing.assert_close(draws.log_prob(value), exact.log_prob(value))


def test_full_laplace_by_the_hessian_of_a_linear_gaussian_network_is_its_posterior():
    problem = linear_gaussian()
    _, closed = at_the_mode(AutoFullLaplace, problem, curvature="hessian")
    torch.testing.assert_close(flat(closed.sd), problem.covariance.diagonal().sqrt())


def test_diagonal_laplace_of_a_linear_gaussian_network_has_its_conditional_variances():
    problem = linear_gaussian()
    _, closed = at_the_mode(AutoDiagonalLaplace, problem)
    conditional = torch.linalg.inv(problem.covariance).diagonal().rsqrt()
    torch.testing.assert_close(flat(closed.sd), conditional)
    torch.testing.assert_close(flat(closed.sd_conditional), conditional)


@pytest.mark.parametrize("guide_class", GUIDES)
def test_covariance_of_the_draws_is_that_of_the_posterior(guide_class):
    problem = linear_gaussian(in_features=2, out_features=1)
    fit, closed = at_the_mode(guide_class, problem)
    torch.manual_seed(0)
    draws = fit.guide.get_posterior().rsample((4000,))
    covariance = problem.covariance
    if guide_class is AutoDiagonalLaplace:
        covariance = flat(closed.sd).square().diag()
    products = torch.einsum("si,sj->sij", *[draws - flat(problem.mean)] * 2)
    error = products.std(0) / len(draws) ** 0.5
    assert ((products.mean(0) - covariance).abs() <= 5 * error).all()


@pytest.mark.training
def test_map_of_a_linear_gaussian_network_is_its_posterior_mean():
    problem = linear_gaussian()
    guide = AutoFullLaplace(problem.model)
    fit = wiu.fit(problem.model, guide, problem.data, epochs=400, batch_size=30, learning_rate=0.05)
    torch.testing.assert_close(flat(fit.point_estimate), flat(problem.mean), atol=1e-5, rtol=1e-5)


def variance_with_curvature_times(problem, factor: float, guide_class) -> torch.Tensor:
    """The variances of the linear-Gaussian posterior with its curvature, not its prior, multiplied."""
    q = torch.cat([torch.full((6,), 0.7**-2, dtype=F64), torch.full((2,), 1.5**-2, dtype=F64)]).diag()
    precision = factor * (torch.linalg.inv(problem.covariance) - q) + q
    if guide_class is AutoDiagonalLaplace:
        return precision.diagonal().reciprocal()
    return torch.linalg.inv(precision).diagonal()


@pytest.mark.parametrize("guide_class", GUIDES)
@pytest.mark.parametrize("temperature", [0.1, 5.0])
def test_temperature_divides_the_curvature_and_keeps_the_prior(temperature, guide_class):
    problem = linear_gaussian()
    _, closed = at_the_mode(guide_class, problem, temperature=temperature)
    expected = variance_with_curvature_times(problem, 1 / temperature, guide_class)
    torch.testing.assert_close(flat(closed.sd).square(), expected)


def test_temperature_multiplies_the_prior_in_the_objective_of_the_point_estimate():
    problem, found = linear_gaussian(), {}
    for temperature in (1.0, 3.0):
        guide = AutoFullLaplace(problem.model, temperature=temperature)
        guide.setup(problem.data)
        found[temperature] = guide.negative_elbo(*problem.data).item()
    priors = problem.model.prior_distributions()
    log_prior = sum(priors[name].log_prob(value).item() for name, value in guide.point_estimate().items())
    assert found[3.0] - found[1.0] == pytest.approx(-2 * log_prior)


@pytest.mark.parametrize(
    ("guide_class", "options"),
    [
        (AutoEKFACLaplace, {}),
        (AutoKFACLaplace, {"weight_sharing": "reduce"}),
        (AutoKFACLaplace, {"column_tolerance": 1e-9}),
        (AutoBlockDiagonalLaplace, {}),
        (AutoBlockDiagonalLaplace, {"curvature": "hessian"}),
        (AutoFullLaplace, {"curvature": "hessian"}),
        (AutoLastLayerLaplace, {}),
        (AutoSubnetworkLaplace, {"fraction": 1.0}),
    ],
)
def test_every_exact_structure_takes_temperature_and_part_of_the_data_alike(guide_class, options):
    problem = linear_gaussian(num_data=30)
    problem.model.num_data = 300
    posterior = guide_class(problem.model, temperature=5.0, **options).laplace_approximation(*problem.data)
    expected = variance_with_curvature_times(problem, 10.0 / 5.0, guide_class)
    torch.testing.assert_close(posterior.get_posterior().variance, expected)


@pytest.mark.parametrize("guide_class", GUIDES)
def test_curvature_of_part_of_the_data_is_scaled_to_all_of_it(guide_class):
    problem = linear_gaussian(num_data=30)
    problem.model.num_data = 300
    posterior = guide_class(problem.model).laplace_approximation(*problem.data)
    assert (posterior.curvature.num_data, posterior.curvature.num_seen, posterior.curvature.scale) == (300.0, 30, 10.0)
    expected = variance_with_curvature_times(problem, 10.0, guide_class)
    torch.testing.assert_close(posterior.get_posterior().variance, expected)


def test_more_fisher_samples_come_closer_to_the_ggn():
    """The sampled Fisher is the GGN on average: a hundred samples lie nearer than one, by about a factor of ten."""
    model, data = small_classifier()
    exact = AutoDiagonalLaplace(model).laplace_approximation(*data).get_posterior().variance
    distance = {}
    for num_samples in (1, 100):
        torch.manual_seed(0)
        guide = AutoDiagonalLaplace(model, curvature="fisher_mc", num_fisher_samples=num_samples)
        variance = guide.laplace_approximation(*data).get_posterior().variance
        distance[num_samples] = (1 / variance - 1 / exact).norm()
    assert distance[100] < 0.3 * distance[1]


@pytest.mark.parametrize("guide_class", GUIDES)
def test_batches_do_not_matter_to_the_curvature(guide_class):
    model, data = small_classifier()
    found = [
        guide_class(model)
        .laplace_approximation(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=size))
        .get_posterior()
        .variance
        for size in (7, 24)
    ]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("num_data", [None, 24])
def test_laplace_alone_does_what_fit_does_with_no_epochs(num_data):
    model, data = small_classifier()
    model.num_data = num_data
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=5)
    alone = AutoKFACLaplace(model).laplace_approximation(loader)
    fitted = wiu.fit(model, AutoKFACLaplace(model), data, epochs=0)
    assert alone.curvature == fitted.guide.curvature
    assert alone.curvature.num_data == 24
    torch.testing.assert_close(alone.get_posterior().variance, fitted.guide.get_posterior().variance)


def test_more_data_than_the_plate_stands_for_is_said():
    model, data = small_classifier()
    model.num_data = 6
    with pytest.warns(UserWarning, match="went over 24 data, but the model's plate stands for 6"):
        AutoKFACLaplace(model).laplace_approximation(*data)


def hessian_of(model, data, weights) -> torch.Tensor:
    """The Hessian of the cross entropy at given weights, by `torch.func`."""
    names, shapes = list(weights), [value.shape for value in weights.values()]

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes)}
        return nn.functional.cross_entropy(functional_call(model.net, values, (data[0],)), data[1], reduction="sum")

    return torch.func.hessian(loss)(torch.cat([value.reshape(-1) for value in weights.values()]))


def test_full_laplace_by_the_hessian_is_that_of_torch_func():
    base, (x, y) = small_classifier()
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    net.load_state_dict(base.net.state_dict())
    model = BayesianNetwork(net, {"*.weight": Normal(0.1), "*.bias": Normal(0.2)}, num_data=24)
    data = (x.double(), y)
    posterior = AutoFullLaplace(model, curvature="hessian").laplace_approximation(*data)
    weights = {name: value.detach() for name, value in net.named_parameters()}
    prior = torch.cat([prior.variance.reshape(-1) for prior in model.prior_distributions().values()])
    precision = hessian_of(model, data, weights) + (1 / prior).diag()
    identity = torch.eye(len(prior), dtype=F64)
    (block,) = posterior.blocks
    covariance = block.precision.covariance_of(identity)
    torch.testing.assert_close(covariance, torch.linalg.inv(precision)[block.index][:, block.index])


def saddle() -> tuple[BayesianNetwork, tuple[torch.Tensor, torch.Tensor]]:
    """Two linear layers at zero: the Hessian couples them with both signs."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return BayesianNetwork(net, Normal(10.0), likelihood="normal", noise_scale=0.1), (x, torch.ones(2, 1))


def test_saddle_is_refused_with_its_eigenvalue_and_gradient():
    model, data = saddle()
    guide = AutoFullLaplace(model, curvature="hessian")
    message = r"Layer '[01]' has 50% of the most negative direction: .*"
    message += r'smallest eigenvalue is -141 \(1 of 3 not positive\).*curvature="ggn".*gradient\'s norm is 0'
    with pytest.raises(CurvatureError, match=message):
        wiu.fit(model, guide, data, epochs=0)


def test_ggn_takes_the_same_saddle():
    model, data = saddle()
    with pytest.warns(UserWarning, match="that of '0', '1' is zero: no gradient comes back at all"):
        fit = wiu.fit(model, AutoFullLaplace(model, zero_curvature="prior"), data, epochs=0)
    assert (fit.guide.get_posterior().variance > 0).all()


@pytest.mark.parametrize("guide_class", GUIDES)
@pytest.mark.parametrize("kind", ["ggn", "fisher_mc", "fisher_empirical"])
def test_every_curvature_gives_a_posterior_narrower_than_the_prior(guide_class, kind):
    model, data = small_classifier()
    posterior = guide_class(model, curvature=kind).laplace_approximation(*data)
    assert posterior.curvature.kind == kind
    assert (posterior.get_posterior().variance <= posterior.flat_prior().scale.square() * (1 + 1e-5)).all()


def test_point_sites_stay_where_they_are():
    net = nn.Linear(3, 1)
    model = BayesianNetwork(net, likelihood="normal", noise_scale=dist.LogNormal(0.0, 0.5))
    x = torch.randn(20, 3)
    fit = wiu.fit(model, AutoKFACLaplace(model), (x, x.sum(1)), epochs=3)
    noises = {float(draw["noise_scale"]) for draw in wiu.infer.draw_weights(fit, num_samples=3)}
    assert noises == {float(fit.point_estimate["noise_scale"])}


def test_layer_beside_kfac_gets_a_diagonal():
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    model = BayesianNetwork(net, num_data=12)
    with pytest.warns(UserWarning, match="These layers get their exact diagonal: LayerNorm 1"):
        posterior = AutoKFACLaplace(model).laplace_approximation(torch.randn(12, 4), torch.zeros(12))
    assert [(block.layers, block.structure) for block in posterior.blocks] == [
        (("0",), "kfac"),
        (("1",), "diagonal"),
        (("3",), "kfac"),
    ]


@pytest.mark.parametrize("guide_class", GUIDES)
@pytest.mark.parametrize("prior", [Laplace(1.0), ScaleMixtureNormal()])
def test_prior_that_is_not_normal_is_refused(guide_class, prior):
    model = BayesianNetwork(nn.Linear(4, 3), {"weight": prior, "bias": Normal()}, num_data=6)
    with pytest.raises(PriorError, match="needs Normal priors on the weights, but site 'weight' has a"):
        guide_class(model).laplace_approximation(torch.ones(6, 4), torch.zeros(6))


def test_prior_that_depends_on_another_site_is_refused():
    with pytest.raises(PriorError, match="the prior of 'fc.weight' depends on another site"):
        AutoKFACLaplace(Hierarchical()).laplace_approximation(torch.ones(6, 4), torch.zeros(6))


class PerRow(wiu.nn.Prior):
    """A prior whose scale differs between output units."""

    def distribution(self, parameter, *, name, module):
        scale = torch.linspace(0.5, 1.0, len(parameter)).view(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter)
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    def describe(self):
        return "Normal(0, by row)"


def test_kfac_refuses_a_prior_scale_that_differs_between_output_units():
    model = BayesianNetwork(nn.Linear(4, 3), PerRow(), num_data=6)
    with pytest.raises(PriorError, match="in layer 'net' the prior's scale differs between output units"):
        AutoKFACLaplace(model).laplace_approximation(torch.ones(6, 4), torch.zeros(6))


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoFullLaplace])
def test_diagonal_and_full_take_such_a_prior(guide_class):
    model = BayesianNetwork(nn.Linear(4, 3), PerRow(), num_data=6)
    posterior = guide_class(model).laplace_approximation(torch.zeros(6, 4), torch.zeros(6))
    # inputs are zero: the weights are at the prior
    scale = torch.linspace(0.5, 1.0, 3)[:, None].expand(3, 4).reshape(-1)
    torch.testing.assert_close(posterior.get_posterior().variance[:12].sqrt(), scale)


@pytest.mark.parametrize("guide_class", GUIDES)
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_training_mode_is_refused_before_anything_is_touched(guide_class, layer):
    model = BayesianNetwork(nn.Sequential(layer, nn.Linear(4, 3)), num_data=6).train()
    before = {name: value.clone() for name, value in model.net.named_buffers()}
    with pytest.raises(CurvatureError, match=r"in training mode. Call model.eval\(\) first"):
        guide_class(model).laplace_approximation(torch.ones(6, 4), torch.zeros(6))
    assert all(torch.equal(value, before[name]) for name, value in model.net.named_buffers())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.fc(x)))


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize(
    ("net", "options", "error", "message"),
    [
        (Twice(), {}, ModelError, "'fc' was called twice"),
        (Idle(), {}, CurvatureError, "no data came through layer 'idle'"),
        (Idle(), {"curvature": "hessian"}, CurvatureError, "'idle.weight' does not: no data came through"),
    ],
)
def test_network_it_cannot_cover_is_refused(net, options, error, message):
    model = BayesianNetwork(net, num_data=6).eval()
    guide_class = AutoFullLaplace if options else AutoKFACLaplace
    with pytest.raises(error, match=message):
        guide_class(model, **options).laplace_approximation(torch.ones(6, 4), torch.zeros(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "gg"}, "has no curvature 'gg'. Did you mean 'ggn'"),
        ({"curvature": "hessian"}, "has no curvature 'hessian'. .* The exact Hessian is for AutoFullLaplace"),
        ({"backend": "curvlinops"}, "has no option 'backend'. There is only one; leave it out"),
        ({"prior_precision": 1.0}, "has no option 'prior_precision'. The model has the prior, as an sd"),
        ({"num_fisher_samples": 0}, "num_fisher_samples must be at least 1, but is 0"),
        ({"temperature": 0.0}, "temperature must be positive, but is 0"),
        ({"temperature": float("nan")}, "temperature must be positive, but is nan"),
    ],
)
def test_option_that_makes_no_sense_is_refused(options, message):
    model, _ = small_classifier()
    with pytest.raises(GuideError, match=message):
        AutoKFACLaplace(model, **options)


INPUTS, LABELS = torch.arange(24.0).view(6, 4) / 24, torch.tensor([0, 1, 2, 0, 1, 2])
ONE_NAN = torch.where(INPUTS == 0.5, torch.nan, INPUTS)
ONE_TOO_HIGH = torch.tensor([0, 1, 2, 0, 1, 3])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((INPUTS.double(), LABELS), DataError, r"dtype of the network's weights, .* torch.float64 .* Convert them"),
        ((INPUTS[:, :3], LABELS), ModelError, r"could not be run on a batch of shapes \(6, 3\), \(6,\): .* input size"),
        ((ONE_NAN, LABELS), DataError, "Inputs must be finite, but 1 of 6 hold NaN or infinity, the first at index 3"),
        ((INPUTS, LABELS / 2), DataError, "Class labels must be whole numbers, .* such as 0.5"),
        ((INPUTS, ONE_TOO_HIGH), DataError, "Labels must lie in 0 … 2, .* but they range from 0 to 3"),
        (as_batches((INPUTS, ONE_TOO_HIGH), batch_size=4), DataError, "Labels must lie in 0 … 2"),
    ],
    ids=["dtype", "size", "nan", "fractions", "label", "label of a later batch"],
)
def test_data_the_network_cannot_take_are_refused_without_a_fit_too(data, error, message):
    model = BayesianNetwork(nn.Linear(4, 3), num_data=6).eval()
    with pytest.raises(error, match=message):
        AutoKFACLaplace(model).laplace_approximation(data)


def test_plain_network_is_told_from_a_pyro_model():
    with pytest.raises(ModelError, match=r"takes? .* Wrap a plain network: model = wiu_pyro.nn.BayesianNetwork\(net\)"):
        AutoKFACLaplace(nn.Linear(4, 3)).laplace_approximation(INPUTS, LABELS)


def test_full_laplace_says_its_cost_before_it_allocates():
    model = BayesianNetwork(nn.Linear(2000, 50), FanInNormal(), num_data=6)
    with pytest.raises(CostError, match=r"100,050 weights needs 373 GiB, more than the 4 GiB it may take"):
        AutoFullLaplace(model, max_bytes=4 * 2**30).laplace_approximation(torch.ones(6, 2000), torch.zeros(6))


def test_point_estimate_alone_has_no_closed_form():
    model, data = small_classifier()
    guide = AutoKFACLaplace(model)
    guide.setup(data)
    with pytest.raises(GuideError, match="is a point estimate until its curvature is known"):
        closed_form(guide, guide.structure)


def sure_network() -> tuple[BayesianNetwork, torch.Tensor, torch.Tensor]:
    """Return a network whose outputs are far apart for most inputs."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(2 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(400, 4, generator=generator)
    return BayesianNetwork(net, num_data=400).eval(), x, net(x).argmax(-1)


def test_column_tolerance_is_recorded_and_the_curvature_called_truncated():
    model, x, y = sure_network()
    guides = [AutoKFACLaplace(model), AutoKFACLaplace(model, column_tolerance=1e-2)]
    exact, truncated = (guide.laplace_approximation(as_batches((x, y), batch_size=100)) for guide in guides)
    assert (exact.curvature.kind, exact.curvature.column_tolerance) == ("ggn", 0.0)
    assert (truncated.curvature.kind, truncated.curvature.column_tolerance) == ("ggn_truncated", 1e-2)
    assert 0 < truncated.curvature.columns_lost <= 1e-2
    assert truncated.curvature.num_seen == 400
    attrs = [wiu.to_inference_data(one, data=(x, y), num_samples=2).posterior.attrs for one in (exact, truncated)]
    assert "column_tolerance" not in attrs[0]
    assert (attrs[1]["curvature"], attrs[1]["column_tolerance"]) == ("ggn_truncated", 1e-2)
    assert attrs[1]["columns_lost"] == truncated.curvature.columns_lost


def test_what_was_lost_above_the_tolerance_is_said(monkeypatch):
    """Data that the network is unsure of come first, and the largest columns are theirs."""
    monkeypatch.setattr("wiu_pyro.curvature.truncation.AUDIT_EVERY", 2)
    model, x, y = sure_network()
    batches = as_batches((torch.cat([0.02 * x[:50], x[50:]]), y), batch_size=50)
    with pytest.warns(UserWarning, match=r"At most 0.001 of each layer's gradients .* Shuffle the data"):
        AutoKFACLaplace(model, column_tolerance=1e-3).laplace_approximation(batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column_tolerance": -0.1}, "column_tolerance must be at least 0 and below 1, but is -0.1"),
        ({"column_tolerance": 1.0}, "must be at least 0 and below 1, but is 1.0"),
        ({"column_tolerance": 0.1, "curvature": "fisher_mc"}, "the curvature is 'fisher_mc'. Leave one of them out"),
    ],
)
def test_column_tolerance_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(GuideError, match=message):
        AutoKFACLaplace(sure_network()[0], **options)
