"""Posteriors over chosen single weights against dense algebra."""

from __future__ import annotations

import math

import arviz as az
import numpy as np
import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from tests.guides.test_laplace_layers import lenet, plain, precision_of
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import CostError, GuideError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoSubnetworkLaplace, closed_form
from wiu_pyro.nn import BayesianNetwork, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier

F64 = torch.float64
SITES = ["fc2.weight", "fc2.bias", "fc1.weight", "fc1.bias", "conv.weight", "conv.bias"]


def masks(share: float = 0.2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {name: value.shape for name, value in lenet()[0].prior_distributions().items() for value in [value.mean]}
    return {name: torch.rand(shape, generator=generator) < share for name, shape in shapes.items() if "fc1" not in name}


def chosen_of(guide) -> torch.Tensor:
    return guide.get_posterior().variance > 0


def flat(guide, values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([values[name].reshape(-1) for name, *_ in guide.sites()])


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_posterior_of_masked_weights_is_that_of_the_network_with_the_others_fixed(structure):
    model, data = lenet()
    select = masks()
    guide = AutoSubnetworkLaplace(model, select=select, structure=structure).laplace_approximation(*data)
    everywhere = {
        **select,
        "fc1.weight": torch.zeros(6, 8, dtype=torch.bool),
        "fc1.bias": torch.zeros(6, dtype=torch.bool),
    }
    chosen = flat(guide, everywhere)
    torch.testing.assert_close(chosen_of(guide), chosen)
    names = [name for name, *_ in guide.sites()]
    precision = precision_of(model, data, names)[chosen][:, chosen]
    if structure == "diagonal":
        precision = precision.diagonal().diag()
    covariance = torch.linalg.inv(precision)
    places = chosen.nonzero()[:, 0]
    posterior = guide.get_posterior()
    torch.testing.assert_close(posterior.covariance(places, places), covariance)
    exact = torch.distributions.MultivariateNormal(guide.loc[chosen], covariance)
    value = guide.loc + torch.randn(len(guide.loc), dtype=F64)
    torch.testing.assert_close(posterior.log_prob(value), exact.log_prob(value[chosen]))
    torch.testing.assert_close(posterior.entropy(), exact.entropy())
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(len(places), dtype=F64), 0.49 * torch.eye(len(places), dtype=F64)
    )
    kl = torch.distributions.kl_divergence(exact, prior)
    torch.testing.assert_close(guide.kl_to_prior(), kl)
    assert closed_form(guide, guide.structure).kl_total == pytest.approx(kl.item())


def test_draws_move_the_chosen_weights_alone():
    model, data = lenet()
    guide = AutoSubnetworkLaplace(model, num_weights=7, select="largest-magnitude").laplace_approximation(*data)
    torch.manual_seed(0)
    draws = guide.get_posterior().rsample((400,))
    chosen = chosen_of(guide)
    assert torch.equal(draws[:, ~chosen], guide.loc[~chosen].expand(400, -1))
    error = (draws[:, chosen] - guide.loc[chosen]).var(0) / guide.get_posterior().variance[chosen] - 1
    assert (error.abs() < 5 * math.sqrt(2 / 400)).all()


def test_largest_magnitude_chooses_the_largest_means_of_the_network():
    model, data = lenet()
    guide = AutoSubnetworkLaplace(model, num_weights=9, select="largest-magnitude").laplace_approximation(*data)
    assert set(chosen_of(guide).nonzero()[:, 0].tolist()) == set(guide.loc.abs().topk(9).indices.tolist())


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_largest_variance_chooses_by_the_diagonal_laplace_approximation(structure):
    model, data = lenet()
    data[0][:, :, 0, 0] = 0
    guide = AutoSubnetworkLaplace(model, num_weights=9, structure=structure).laplace_approximation(*data)
    variance = AutoDiagonalLaplace(model).laplace_approximation(*data).get_posterior().variance
    assert set(chosen_of(guide).nonzero()[:, 0].tolist()) == set(variance.topk(9).indices.tolist())
    if structure == "diagonal":
        torch.testing.assert_close(guide.get_posterior().variance[chosen_of(guide)], variance[chosen_of(guide)])


def test_weights_of_inputs_that_are_always_zero_are_chosen_last():
    torch.manual_seed(0)
    model = BayesianNetwork(nn.Linear(4, 3), Normal(1.0), num_data=12)
    x = torch.randn(12, 4) * torch.tensor([0.0, 1.0, 1.0, 1.0])
    posterior = AutoSubnetworkLaplace(model, num_weights=12).laplace_approximation(x, torch.arange(12) % 3)
    chosen = dict(zip(("weight", "bias"), chosen_of(posterior).split([12, 3]), strict=True))
    assert not chosen["weight"].view(3, 4)[:, 0].any()
    assert chosen["weight"].view(3, 4)[:, 1:].all()
    assert chosen["bias"].all()


@pytest.mark.parametrize(
    ("options", "count"), [({}, 1), ({"fraction": 0.1}, 10), ({"num_weights": 5}, 5), ({"fraction": 1.0}, 95)]
)
def test_number_of_weights_is_as_asked(options, count):
    model, data = lenet()
    guide = AutoSubnetworkLaplace(model, select="largest-magnitude", **options)
    assert int(chosen_of(guide.laplace_approximation(*data)).sum()) == count


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_subnetwork_of_all_weights_of_a_linear_gaussian_network_is_its_posterior(structure):
    problem = linear_gaussian()
    guide = AutoSubnetworkLaplace(problem.model, fraction=1.0, structure=structure)
    fit = wiu.fit(problem.model, guide, problem.data, epochs=0, start=problem.mean)
    variance = fit.guide.get_posterior().variance
    exact = problem.covariance.diagonal()
    if structure == "diagonal":
        exact = torch.linalg.inv(problem.covariance).diagonal().reciprocal()
    torch.testing.assert_close(variance, exact)


def test_linearised_covariance_is_that_of_the_chosen_weights():
    model, data = lenet()
    guide = AutoSubnetworkLaplace(model, select=masks()).laplace_approximation(*data)
    (part,) = list(wiu.infer.functional_distribution(model, guide, wiu.nn.as_batches((data[0],), batch_size=12)))
    net = plain()

    def outputs(vector, x):
        values, start = {}, 0
        for name, _, shape in guide.sites():
            values[name] = vector[start : start + shape.numel()].view(shape)
            start += shape.numel()
        return torch.func.functional_call(net, values, (x[None],))[0]

    jacobian = torch.stack([torch.func.jacrev(outputs)(guide.loc, x) for x in data[0]])
    places = chosen_of(guide).nonzero()[:, 0]
    covariance = guide.get_posterior().covariance(places, places)
    expected = jacobian[..., places] @ covariance @ jacobian[..., places].mT
    torch.testing.assert_close(part.covariance, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "largest"}, "Unknown select 'largest'. Did you mean 'largest-"),
        ({"structure": "kfac"}, "Unknown structure 'kfac'. Known: diagonal, full"),
        ({"num_weights": 3, "fraction": 0.1}, "needed once: .*; got num_weights and fraction. Leave the others out"),
        ({"num_weights": 3, "select": {}}, "got num_weights beside masks"),
        ({"num_weights": 0}, r"num_weights must be at least 1 and fraction within \(0, 1\], got num_weights=0"),
        ({"fraction": 1.5}, "got fraction=1.5"),
    ],
)
def test_choice_that_makes_no_sense_is_refused_at_once(options, message):
    with pytest.raises(GuideError, match=message):
        AutoSubnetworkLaplace(lenet()[0], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_weights": 96}, "A subnetwork of 96 weights was asked for, but the network has 95"),
        (
            {"select": {"fc3.weight": torch.ones(1)}},
            "a mask for 'fc3.weight', which is no site. Did you mean 'fc2.weight'",
        ),
        ({"select": {"fc2.bias": torch.ones(3)}}, r"must be of bool and of shape \(3,\), but is of float32"),
        ({"select": {"fc2.bias": torch.ones(4) > 0}}, r"but is of bool and of shape \(4,\)"),
        ({"select": {"fc2.bias": torch.zeros(3) > 0}}, "the masks of select= choose none"),
    ],
)
def test_choice_that_does_not_fit_the_network_is_refused_before_training(options, message):
    model, data = lenet()
    with pytest.raises(GuideError, match=message):
        wiu.fit(model, AutoSubnetworkLaplace(model, **options), data, epochs=1_000_000)


def test_cost_is_that_of_the_chosen_weights_and_names_what_fits():
    model, data = lenet()
    AutoSubnetworkLaplace(model, num_weights=10, max_bytes=4_000).laplace_approximation(*data)
    with pytest.raises(CostError, match=r"of 11 weights needs 4.73 KiB, .*Use num_weights=10, structure='diagonal'"):
        AutoSubnetworkLaplace(model, num_weights=11, max_bytes=4_000).laplace_approximation(*data)


def test_whole_matrix_is_never_formed(monkeypatch):
    """Three hundred weights of a network of two million, whose own matrix would take terabytes."""
    monkeypatch.setattr("wiu_pyro.guides.laplace.available_bytes", lambda device: 50 * 2**20)
    net = nn.Sequential(nn.Linear(2000, 1000), nn.Tanh(), nn.Linear(1000, 3))
    model = BayesianNetwork(net, num_data=4)
    guide = AutoSubnetworkLaplace(model, num_weights=300, select="largest-magnitude")
    posterior = guide.laplace_approximation(torch.randn(4, 2000), torch.arange(4) % 3)
    assert [block.precision.numel for block in posterior.blocks] == [300]


def exported(guide_options: dict, path):
    model, data = small_classifier()
    fit = wiu.fit(model, AutoSubnetworkLaplace(model, **guide_options), data, epochs=2)
    wiu.save(wiu.to_inference_data(fit, data, num_samples=20), path)
    return fit, wiu.load(path)


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_export_of_a_subnetwork_counts_its_weights_alone(structure, tmp_path):
    fit, idata = exported({"num_weights": 6, "structure": structure, "select": "largest-magnitude"}, tmp_path / "a.nc")
    table = diagnostics.layer_uncertainty(idata)
    assert int(table["num_uncertain"].sum()) == 6
    attrs = schema.attrs(idata)
    assert attrs["structure"] == structure
    assert attrs["approximation"] == "laplace-subnetwork"
    assert "at a point estimate" in attrs["not_covered"]
    closed = closed_form(fit.guide, fit.structure)
    sd = torch.cat([closed.sd[name].reshape(-1) for name in closed.sd])
    prior = torch.cat([fit.structure.priors[name].stddev.reshape(-1) for name in closed.sd])
    effective = (1 - (sd / prior).square())[sd > 0].sum()
    found = sum(float(table[name].sum()) for name in ("effective_parameters", "contraction_sum") if name in table)
    assert found == pytest.approx(effective.item(), rel=1e-4)
    assert float(table["kl_total"]) == pytest.approx(closed.kl_total, rel=1e-6)
    draws = schema.dataset(idata, "layer_0")["weight"].values[0]
    moments = schema.dataset(idata, "moments_0")
    held = moments["sd"].values[0] == 0
    assert (draws[:, held] == moments["mean"].values[0][held]).all()
    # rms over the covered weights: those of all draws together have the posterior's variance
    deviation = schema.dataset(idata, "posterior")["deviation_rms"].values[0]
    assert (deviation > 0).any()
    assert az.summary(idata, kind="stats").shape[0] == 2


def test_subnetworks_of_several_seeds_join_though_they_cover_other_layers(tmp_path):
    shapes = {"0.weight": (5, 4), "2.weight": (3, 5)}
    runs = []
    for site, shape in shapes.items():
        _, idata = exported({"select": {site: torch.ones(shape, dtype=torch.bool)}}, tmp_path / f"{site}.nc")
        runs.append(idata)
    joined = wiu.concat(runs)
    table = diagnostics.layer_uncertainty(joined)
    assert table["num_uncertain"].values.tolist() == [[20, 0], [0, 15]]
    assert np.isnan(table["contraction"].values).tolist() == [[False, True], [True, False]]
    assert schema.dataset(joined, "layers")["structure"].values.tolist() == ["full", "full"]
