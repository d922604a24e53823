"""Posteriors over some of the layers, and structures by layer, against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev, vmap

import wiu_pyro as wiu
from wiu_pyro.errors import CostError, CurvatureError, GuideError, PriorError
from wiu_pyro.guides import (
    AutoBlockDiagonalLaplace,
    AutoDiagonalLaplace,
    AutoEKFACLaplace,
    AutoFullLaplace,
    AutoKFACLaplace,
    AutoLaplace,
    AutoLastLayerLaplace,
    closed_form,
)
from wiu_pyro.nn import BayesianNetwork, Laplace, Normal
from wiu_pyro.testing import linear_gaussian, small_classifier

F64 = torch.float64


class Lenet(nn.Module):
    """Convolutions and dense layers, made in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        self.fc2 = nn.Linear(6, 3)
        self.fc1 = nn.Linear(8, 6)
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.conv(x)).flatten(1)
        return self.fc2(torch.tanh(self.fc1(hidden)))


def plain() -> Lenet:
    torch.manual_seed(0)
    return Lenet().double()


def lenet(num_data: int = 12, prior=None) -> tuple[BayesianNetwork, tuple[torch.Tensor, torch.Tensor]]:
    model = BayesianNetwork(plain(), prior or Normal(0.7), num_data=num_data)
    return model, (torch.randn(num_data, 1, 4, 4, dtype=F64), torch.arange(num_data) % 3)


def precision_of(model, data, sites: list[str]) -> torch.Tensor:
    """GGN plus prior precision over the given sites, by `torch.func`."""
    net = plain()
    weights = {name: value.detach() for name, value in net.named_parameters()}

    def outputs(values, x):
        return functional_call(net, {**weights, **values}, (x[None],))[0]

    own = {name: weights[name] for name in sites}
    found = vmap(jacrev(outputs), (None, 0))(own, data[0])
    jacobian = torch.cat([found[name].flatten(2) for name in sites], -1)
    logits = functional_call(net, weights, (data[0],))
    curvature = torch.stack([hessian(lambda f: torch.logsumexp(f, -1))(row) for row in logits])
    priors = model.prior_distributions()
    q = torch.cat([priors[name].variance.reshape(-1) for name in sites]).reciprocal()
    return torch.einsum("nci,ncd,ndj->ij", jacobian, curvature, jacobian) + q.diag()


def sd_of(guide_or_fit, sites: list[str]) -> torch.Tensor:
    closed = closed_form(guide_or_fit, guide_or_fit.structure)
    return torch.cat([closed.sd[name].reshape(-1) for name in sites])


LAST, FIRST = ["fc2.weight", "fc2.bias"], ["conv.weight", "conv.bias"]


@pytest.mark.parametrize(
    ("asked", "sites"), [({"fc2": "full"}, LAST), ({"conv": "full"}, FIRST), ({"f?2": "full", "*": "point"}, LAST)]
)
def test_posterior_of_one_layer_is_that_of_the_network_with_the_others_fixed(asked, sites):
    model, data = lenet()
    guide = AutoLaplace(model, structure=asked).laplace_approximation(*data)
    expected = torch.linalg.inv(precision_of(model, data, sites)).diagonal().sqrt()
    torch.testing.assert_close(sd_of(guide, sites), expected)


def test_joint_posterior_of_chosen_layers_is_that_of_the_network_with_the_others_fixed():
    model, data = lenet()
    guide = AutoFullLaplace(model, layers=["conv", "fc2"]).laplace_approximation(*data)
    sites = [*FIRST, *LAST]
    covariance = torch.linalg.inv(precision_of(model, data, sites))
    torch.testing.assert_close(sd_of(guide, sites), covariance.diagonal().sqrt())
    between = guide.covariance(("conv.weight", None), ("fc2.bias", None))
    torch.testing.assert_close(between, covariance[:18, -3:])
    assert closed_form(guide, guide.structure).layer_structure == {"conv": "full", "fc1": "point", "fc2": "full"}


def test_joint_hessian_of_chosen_layers_leaves_the_others_out():
    problem = linear_gaussian()
    guide = AutoFullLaplace(problem.model, curvature="hessian", layers="net").laplace_approximation(*problem.data)
    assert len(guide.loc) == 8
    model, data = lenet(prior=Normal(0.05))
    posterior = AutoFullLaplace(model, curvature="hessian", layers="fc2").laplace_approximation(*data)
    # in the last layer the Hessian is the GGN
    expected = torch.linalg.inv(precision_of(model, data, LAST)).diagonal().sqrt()
    torch.testing.assert_close(sd_of(posterior, LAST), expected)


def test_blocks_of_the_layers_are_those_of_the_whole_matrix():
    model, data = lenet()
    guide = AutoBlockDiagonalLaplace(model).laplace_approximation(*data)
    assert [block.structure for block in guide.blocks] == ["full"] * 3
    for layer in ("conv", "fc1", "fc2"):
        sites = [f"{layer}.weight", f"{layer}.bias"]
        expected = torch.linalg.inv(precision_of(model, data, sites)).diagonal().sqrt()
        torch.testing.assert_close(sd_of(guide, sites), expected)


def test_blocks_of_the_exact_hessian_are_those_of_torch_func():
    model, data = lenet(prior=Normal(0.1))
    guide = AutoBlockDiagonalLaplace(model, curvature="hessian").laplace_approximation(*data)
    net = plain()
    weights = {name: value.detach() for name, value in net.named_parameters()}
    for layer in ("conv", "fc1", "fc2"):
        names = [f"{layer}.weight", f"{layer}.bias"]
        sizes = [weights[name].numel() for name in names]

        def loss(vector, names=names, sizes=sizes):
            parts = zip(names, vector.split(sizes), strict=True)
            values = {name: part.view(weights[name].shape) for name, part in parts}
            logits = functional_call(net, {**weights, **values}, (data[0],))
            return nn.functional.cross_entropy(logits, data[1], reduction="sum")

        matrix = hessian(loss)(torch.cat([weights[name].reshape(-1) for name in names]))
        expected = torch.linalg.inv(matrix + 100 * torch.eye(len(matrix), dtype=F64)).diagonal().sqrt()
        torch.testing.assert_close(sd_of(guide, names), expected)


def test_block_of_the_hessian_that_is_not_positive_definite_is_named_with_its_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    net[2].weight.data *= 100
    model = BayesianNetwork(net, Normal(100.0), num_data=8)
    data = (torch.randn(8, 2, dtype=F64), torch.arange(8) % 2)
    with pytest.raises(CurvatureError, match=r"Layer '0': .* not positive.*gradient's norm is"):
        AutoBlockDiagonalLaplace(model, curvature="hessian").laplace_approximation(*data)


@pytest.mark.parametrize("guide_class", [AutoEKFACLaplace, AutoBlockDiagonalLaplace, AutoLastLayerLaplace])
@pytest.mark.parametrize("outputs", [1, 3])
def test_structures_that_hold_all_of_a_linear_gaussian_layer_give_its_posterior(guide_class, outputs):
    problem = linear_gaussian(out_features=outputs)
    fit = wiu.fit(problem.model, guide_class(problem.model), problem.data, epochs=0, start=problem.mean)
    closed = closed_form(fit.guide, fit.structure)
    sd = torch.cat([closed.sd[name].reshape(-1) for name in ("weight", "bias")])
    torch.testing.assert_close(sd, problem.covariance.diagonal().sqrt())
    assert closed.kl_total == pytest.approx(problem.kl, rel=1e-9)


def test_ekfac_has_the_variance_of_the_exact_block_in_each_direction_of_its_basis():
    model, data = lenet(prior={"*.weight": Normal(0.4), "*.bias": Normal(1.3)})
    guide = AutoEKFACLaplace(model).laplace_approximation(*data)
    for block in guide.blocks:
        rule = block.rules[block.layers[0]]
        names = [f"{block.layers[0]}.{name}" for name in rule.shapes]
        exact = precision_of(model, data, names)
        order = torch.cat([part.reshape(-1) for part in rule.split(torch.arange(rule.numel)).values()])
        exact = exact[order.argsort()][:, order.argsort()]  # in the rule's order
        precision = block.precision
        whitener = precision.whitener.repeat(rule.out_features)
        basis = torch.kron(precision.out_basis[0], precision.in_basis[0])
        diagonal = (basis.mT @ (exact * whitener * whitener[:, None]) @ basis).diagonal()
        torch.testing.assert_close(precision.eigenvalues.reshape(-1), diagonal)


def test_batches_do_not_matter_to_ekfac():
    model, data = lenet()
    found = [
        AutoEKFACLaplace(model)
        .laplace_approximation(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=size))
        .get_posterior()
        .variance
        for size in (5, 12)
    ]
    torch.testing.assert_close(found[0], found[1])


def test_mixed_structures_are_each_layers_own():
    model, data = lenet()
    asked = {"conv": "kfac", "fc2": "full", "*": "diagonal"}
    guide = AutoLaplace(model, structure=asked).laplace_approximation(*data)
    closed = closed_form(guide, guide.structure)
    assert closed.layer_structure == {"conv": "kfac", "fc1": "diagonal", "fc2": "full"}
    for layer, other in (("conv", AutoKFACLaplace), ("fc1", AutoDiagonalLaplace), ("fc2", AutoBlockDiagonalLaplace)):
        whole = other(model).laplace_approximation(*data)
        sites = [f"{layer}.weight", f"{layer}.bias"]
        torch.testing.assert_close(sd_of(guide, sites), sd_of(whole, sites))


def test_last_layer_is_the_one_called_last_whatever_the_order_of_sampling():
    model, data = lenet()
    guide = AutoLastLayerLaplace(model)
    posterior = guide.laplace_approximation(*data)
    assert [layer.name for layer in posterior.structure.layers][-1] == "conv"
    assert guide.last_layer == "fc2"
    expected = torch.linalg.inv(precision_of(model, data, LAST)).diagonal().sqrt()
    torch.testing.assert_close(sd_of(posterior, LAST), expected)


def test_normalisation_behind_the_last_layer_is_not_meant():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.LayerNorm(3))
    guide = AutoLastLayerLaplace(BayesianNetwork(net, num_data=6))
    guide.setup((torch.randn(6, 4), torch.zeros(6).long()))
    assert guide.last_layer == "2"


@pytest.mark.parametrize(("width", "structure"), [(10, "full"), (2100, "kfac")])
def test_last_layer_is_full_where_that_is_small(width, structure):
    net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 3))
    guide = AutoLastLayerLaplace(BayesianNetwork(net, num_data=6))
    guide.setup((torch.randn(6, 2), torch.zeros(6).long()))
    assert guide.chosen_structures() == {"0": "point", "2": structure}


def test_network_below_the_last_layer_is_not_differentiated():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            seen.append(output.requires_grad)
            return output

    net = nn.Sequential(Watched(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model = BayesianNetwork(net, num_data=24)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*small_classifier()[1]), batch_size=4)
    AutoLastLayerLaplace(model).laplace_approximation(loader)
    assert seen[-6:] == [False] * 6  # the pass over the data; before it the network is looked at


def test_layers_at_their_point_estimate_may_have_any_prior():
    prior = {"conv.*": Laplace(1.0), "fc1.*": Laplace(0.3), "*": Normal(0.7)}
    model, data = lenet(prior=prior)
    guide = AutoLastLayerLaplace(model).laplace_approximation(*data)
    closed = closed_form(guide, guide.structure)
    assert closed.layer_kl["fc2"] == pytest.approx(closed.kl_total)
    with pytest.raises(PriorError, match="site 'fc1.weight' has a Laplace"):
        AutoKFACLaplace(model).laplace_approximation(*data)


def test_layers_at_their_point_estimate_have_no_spread_and_no_divergence():
    model, data = lenet()
    guide = AutoLaplace(model, structure={"fc2": "kfac"}).laplace_approximation(*data)
    closed = closed_form(guide, guide.structure)
    assert closed.layer_structure == {"conv": "point", "fc1": "point", "fc2": "kfac"}
    for site, value in plain().named_parameters():
        torch.testing.assert_close(closed.mean[site], value.detach())
        assert bool((closed.sd[site] == 0).all()) == (not site.startswith("fc2"))
    assert torch.tensor([closed.layer_kl["conv"], closed.layer_kl["fc1"]]).isnan().all()
    assert closed.kl_total == pytest.approx(closed.layer_kl["fc2"])
    draws = list(wiu.infer.draw_weights(guide, num_samples=3))
    assert all(torch.equal(draw["conv.weight"], draws[0]["conv.weight"]) for draw in draws)
    assert not torch.equal(draws[0]["fc2.weight"], draws[1]["fc2.weight"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: AutoLaplace(model, structure="kfak"), r"Unknown structure 'kfak' for '\*'. Did you mean 'kfac'"),
        (lambda model: AutoLaplace(model, structure={"fc3": "kfac"}), "must match a layer, but 'fc3' matches none"),
        (lambda model: AutoLaplace(model, structure={"*": "point"}), 'all are left at "point"'),
        (lambda model: AutoFullLaplace(model, layers="head*"), r"must match a layer, but 'head\*' matches none"),
        (lambda model: AutoFullLaplace(model, layers=[]), "At least one layer is needed, but none was named"),
        (lambda model: AutoLastLayerLaplace(model, structure="ful"), "Unknown structure 'ful'. Did you mean 'full'"),
    ],
)
def test_choice_that_makes_no_sense_is_refused(make, message):
    model, data = lenet()
    with pytest.raises(GuideError, match=message):
        make(model).laplace_approximation(*data)


def test_cost_of_a_joint_block_is_that_of_its_layers():
    model, data = lenet()
    size = 40 * 21**2
    AutoFullLaplace(model, layers="fc2", max_bytes=size).laplace_approximation(*data)
    with pytest.raises(CostError, match="AutoFullLaplace of 21 weights needs 17.2 KiB"):
        AutoFullLaplace(model, layers="fc2", max_bytes=size - 1).laplace_approximation(*data)
