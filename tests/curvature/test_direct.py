"""Layers that are differentiated datum by datum, against per-sample reverse mode."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from tests.curvature.networks import (
    CLASSES,
    DIFFERENTIATED,
    NETWORKS,
    NUM_DATA,
    build,
    output_hessians,
    rules_of,
    weights_of,
)
from wiu_pyro.curvature import (
    CategoricalOutput,
    CurvaturePass,
    DirectRule,
    direct_layers,
    layers_to_differentiate,
)
from wiu_pyro.errors import CurvatureError, ModelError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoLaplace
from wiu_pyro.infer import functional_distribution
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])

# torch warns of an even kernel under padding="same": it pads more on one side
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

NEEDED = {
    "own-parameters": {"net", "place", "act"},
    "attention": {"attend", "attend.out_proj"},
    "attention-positions-first": {"attend", "attend.out_proj"},
    "encoder": {"body.layers.0.self_attn", "body.layers.0.self_attn.out_proj"},
    # its norms and linear layers see positions along the first dim
    "encoder-positions-first": {
        f"body.layers.0.{part}" for part in ("self_attn", "self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
    },
    "lstm": {"read"},
    "gru": {"read"},
    "folded": {"each"},
    "used-elsewhere": {"code"},
}


def posterior_of(guide_class, net: nn.Module, x: torch.Tensor, **options):
    model = BayesianNetwork(net, prior=Normal(scale=1.0), num_data=len(x)).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="kfac covers Linear")  # see the test of that warning
        return model, guide_class(model, **options).laplace_approximation(x, LABELS)


def block_jacobian(net: nn.Module, posterior, block, x: torch.Tensor) -> torch.Tensor:
    """Return df/dw in the block's order, shape (batch, outputs, numel), one datum and output at a time."""
    leaves = dict(net.named_parameters())
    rows = []
    for one in x:
        grads = [torch.autograd.grad(value, list(leaves.values()), retain_graph=True) for value in net(one[None])[0]]
        each = [dict(zip(leaves, grad, strict=True)) for grad in grads]
        rows.append(torch.stack([joined(posterior, block, found) for found in each]))
    return torch.stack(rows)


def joined(posterior, block, values: dict[str, torch.Tensor]) -> torch.Tensor:
    parts = []
    for layer, rule in block.rules.items():
        sites = posterior.structure.layer_sites[layer]
        parts.append(rule.join({key: values[site] for key, site in sites.items()}))
    return torch.cat(parts, -1)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_diagonal_of_every_layer_is_that_of_the_ggn(name):
    net, x = build(name)
    _, posterior = posterior_of(AutoDiagonalLaplace, net, x)
    for block in posterior.blocks:
        jacobian = block_jacobian(net, posterior, block, x)
        expected = torch.einsum("nci,ncd,ndi->i", jacobian, output_hessians(net, x), jacobian)
        torch.testing.assert_close(1 / block.precision.variance() - 1, expected)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_joint_curvature_holds_the_ggn_of_all_layers_together(name):
    net, x = build(name)
    _, posterior = posterior_of(AutoFullLaplace, net, x)
    (block,) = posterior.blocks
    jacobian = block_jacobian(net, posterior, block, x)
    ggn = torch.einsum("nci,ncd,ndj->ij", jacobian, output_hessians(net, x), jacobian)
    eye = torch.eye(len(ggn), dtype=torch.float64)
    torch.testing.assert_close(block.precision.covariance_of(eye), torch.linalg.inv(ggn + eye))


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_linearised_predictive_takes_these_layers_in(name, guide_class):
    net, x = build(name)
    model, posterior = posterior_of(guide_class, net, x)
    total = 0.0
    for block in posterior.blocks:
        jacobian = block_jacobian(net, posterior, block, x)
        covariance = block.precision.covariance_of(torch.eye(block.precision.numel, dtype=torch.float64))
        total = total + jacobian @ covariance @ jacobian.mT
    parts = list(functional_distribution(model, posterior, as_batches((x,), batch_size=4)))
    torch.testing.assert_close(torch.cat([part.covariance for part in parts]), total)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_one_block_for_each_layer_in_full_is_its_ggn(name):
    net, x = build(name)
    _, posterior = posterior_of(AutoLaplace, net, x, structure="full")
    assert {block.structure for block in posterior.blocks} == {"full"}
    for block in posterior.blocks:
        jacobian = block_jacobian(net, posterior, block, x)
        ggn = torch.einsum("nci,ncd,ndj->ij", jacobian, output_hessians(net, x), jacobian)
        eye = torch.eye(len(ggn), dtype=torch.float64)
        torch.testing.assert_close(block.precision.covariance_of(eye), torch.linalg.inv(ggn + eye))


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_kfac_gives_a_diagonal_to_these_layers_and_names_them_once(name):
    net, x = build(name)
    model = BayesianNetwork(net, num_data=NUM_DATA).eval()
    with pytest.warns(UserWarning, match="get their exact diagonal") as seen:
        posterior = AutoKFACLaplace(model).laplace_approximation(as_batches((x, LABELS), batch_size=2))
    assert len(seen) == 1
    structures = {block.layers[0]: block.structure for block in posterior.blocks}
    uncovered = {layer for layer, structure in structures.items() if structure == "diagonal"}
    named = str(seen[0].message).partition(": ")[2].partition(". To have")[0]
    assert {item.split()[-1] for part in named.split("; ") for item in part.split(", ")} == uncovered
    normalised = {layer for layer in structures if "norm" in layer}
    own_name = {"net": "token"}  # a parameter of the network itself is a layer by its own name
    assert uncovered == {own_name.get(layer, layer) for layer in NEEDED[name]} | normalised


def look(net: nn.Module, x: torch.Tensor) -> frozenset[str]:
    rules = rules_of(net)
    sites = {name: {key: f"{name}.{key}" if name else key for key in rule.shapes} for name, rule in rules.items()}

    def forward(batch, weights):
        return CategoricalOutput(torch.func.functional_call(net, dict(weights), (batch[0],)))

    return layers_to_differentiate(forward, weights_of(net), (x,), rules=rules, sites=sites)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_whose_input_and_output_show_their_jacobian_are_not_differentiated(name):
    assert look(*build(name)) == frozenset()


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_first_look_finds_the_layers_to_differentiate(name):
    assert {layer or "net" for layer in look(*build(name))} == NEEDED[name]


def captured_layers(name: str, **changes):
    """Return a network's rules, and a pass that differentiates at those of its layers that need it."""
    net, x = build(name)
    rules = rules_of(net)
    sites = {key: {part: f"{key}.{part}" if key else part for part in rule.shapes} for key, rule in rules.items()}
    rules = {key: rule for key, rule in rules.items() if isinstance(rule, DirectRule)}

    def forward(batch, weights):
        return CategoricalOutput(torch.func.functional_call(net, dict(weights), (batch[0],)))

    direct = direct_layers(forward, weights_of(net), rules=rules, sites=sites)
    for key, value in changes.items():
        setattr(direct, key, value)
    passed = CurvaturePass(lambda batch: forward(batch, dict(net.named_parameters())), {}, direct)
    return rules, passed.run([(x[:4],), (x[4:],)], lambda likelihood, batch: likelihood.sqrt_hessian())


@pytest.mark.parametrize("changes", [{"_vectorised": False}, {"MAX_ELEMENTS": 1}])
@pytest.mark.parametrize("name", ["lstm", "own-parameters"])
def test_one_datum_or_one_column_at_a_time_gives_the_same(name, changes, monkeypatch):
    rules, batches = captured_layers(name)
    found = next(batches)
    whole = {key: rule.squared_sum(found.inputs[key], found.grads[key]) for key, rule in rules.items()}
    jacobian = {key: rule.jacobian(found.inputs[key], found.grads[key]) for key, rule in rules.items()}
    if "MAX_ELEMENTS" in changes:
        monkeypatch.setattr("wiu_pyro.curvature.direct.MAX_ELEMENTS", changes.pop("MAX_ELEMENTS"))
    other, other_batches = captured_layers(name, **changes)
    found = next(other_batches)
    for key, rule in other.items():
        torch.testing.assert_close(rule.squared_sum(found.inputs[key], found.grads[key]), whole[key])
        rows = slice(1, 3)
        part = rule.jacobian(found.inputs[key][rows], found.grads[key][:, rows])
        torch.testing.assert_close(part, jacobian[key][rows])


@pytest.mark.parametrize("num_data", [1, 2, 3, 6])
def test_operation_that_vmap_gets_wrong_is_done_one_datum_at_a_time(num_data):
    """Torch's rule for the backward of PReLU takes one dim for another; with some sizes without an error."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, CLASSES)).double()
    x = torch.randn(num_data, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    model = BayesianNetwork(net, prior=Normal(scale=1.0), num_data=num_data).eval()
    posterior = AutoDiagonalLaplace(model, zero_curvature="prior").laplace_approximation(x, LABELS[:num_data])
    for block in posterior.blocks:
        jacobian = block_jacobian(net, posterior, block, x)
        expected = torch.einsum("nci,ncd,ndi->i", jacobian, output_hessians(net, x), jacobian)
        torch.testing.assert_close(1 / block.precision.variance() - 1, expected)


def test_columns_other_than_those_of_the_pass_are_taken_as_they_are():
    rules, batches = captured_layers("own-parameters")
    found = next(batches)
    for key, rule in rules.items():
        once = rule.jacobian(found.inputs[key], found.grads[key])
        torch.testing.assert_close(rule.jacobian(found.inputs[key], 2 * found.grads[key]), 2 * once)
        once = rule.squared_sum(found.inputs[key], found.grads[key])
        torch.testing.assert_close(rule.squared_sum(found.inputs[key], 2 * found.grads[key]), 4 * once)


def test_batch_that_is_past_is_refused():
    rules, batches = captured_layers("own-parameters")
    first, _ = next(batches), next(batches)
    key, rule = next(iter(rules.items()))
    with pytest.raises(CurvatureError, match="batch 1 was asked for, but the pass has gone on to batch 2"):
        rule.jacobian(first.inputs[key], first.grads[key])
    batches.close()
    with pytest.raises(CurvatureError, match="only while a pass over the data is under way"):
        rule.jacobian(first.inputs[key], first.grads[key])


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.spare = nn.Linear(4, CLASSES), nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.fc(torch.tanh(self.fc(x))))


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (Unused(), CurvatureError, "no data came through layer 'spare'"),
        (Twice(), ModelError, r"'fc' was called twice \(shared weights\)"),
    ],
)
def test_parameter_that_shapes_nothing_and_layer_called_twice_are_refused(net, error, message):
    model = BayesianNetwork(net, num_data=NUM_DATA).eval()
    with pytest.raises(error, match=message):
        AutoDiagonalLaplace(model).laplace_approximation(torch.ones(NUM_DATA, 4), LABELS)


def test_curvature_does_not_touch_the_random_state():
    net, x = build("attention")
    torch.manual_seed(3)
    posterior_of(AutoDiagonalLaplace, net, x)
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(2))
