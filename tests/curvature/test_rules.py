"""Each layer's Jacobian against per-sample reverse mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.curvature.networks import (
    CLASSES,
    NETWORKS,
    NUM_DATA,
    build,
    captured,
    ggn_of_layer,
    jacobians,
    rules_of,
)
from wiu_pyro.curvature import DiagonalCurvature, DirectRule, FullCurvature, MatrixRule, rule_for
from wiu_pyro.errors import CurvatureError

# torch warns of an even kernel under padding="same": it pads more on one side, which is what is tested
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def unit_columns(likelihood, batch):
    return torch.eye(CLASSES, dtype=torch.float64)[:, None].expand(-1, NUM_DATA, -1)


def ggn_columns(likelihood, batch):
    return likelihood.sqrt_hessian()


@pytest.mark.parametrize("name", NETWORKS)
def test_jacobian_of_every_layer_is_that_of_each_sample_alone(name):
    net, x = build(name)
    found = captured(net, x, unit_columns)
    for layer, rule in rules_of(net).items():
        jacobian = rule.jacobian(found.inputs[layer], found.grads[layer])
        torch.testing.assert_close(jacobian, jacobians(net, x, layer), msg=lambda text, layer=layer: f"{layer}: {text}")


@pytest.mark.parametrize("name", NETWORKS)
def test_projected_inputs_are_the_inputs_times_a_matrix_of_each_group(name):
    net, x = build(name)
    found = captured(net, x, unit_columns)
    for layer, rule in rules_of(net).items():
        if isinstance(rule, MatrixRule):
            generator = torch.Generator().manual_seed(0)
            matrix = torch.randn(rule.groups, rule.in_features, 4, generator=generator, dtype=torch.float64)
            expected = torch.einsum("ngti,gik->ngtk", rule.inputs(found.inputs[layer]), matrix)
            torch.testing.assert_close(rule.project(found.inputs[layer], matrix), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_diagonal_is_that_of_the_ggn(name):
    net, x = build(name)
    found = captured(net, x, ggn_columns)
    for layer, rule in rules_of(net).items():
        diagonal = DiagonalCurvature(rule)
        diagonal.update(found.inputs[layer], found.grads[layer])
        torch.testing.assert_close(diagonal.diagonal, ggn_of_layer(net, x, layer).diagonal())


@pytest.mark.parametrize("name", ["mlp", "sequence", "grouped", "batch-norm"])
def test_full_curvature_holds_the_ggn_of_all_layers_together(name):
    net, x = build(name)
    found = captured(net, x, ggn_columns)
    rules = rules_of(net)
    full = FullCurvature(rules)
    full.update(found)
    joint = torch.cat([jacobians(net, x, layer) for layer in rules], -1)
    probs = torch.softmax(net(x), -1).detach()
    hessians = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    torch.testing.assert_close(full.matrix, torch.einsum("nci,ncd,ndj->ij", joint, hessians, joint))


def test_diagonal_in_chunks_is_the_diagonal_at_once(monkeypatch):
    net, x = build("stride-padding")
    found = captured(net, x, ggn_columns)
    rule = rules_of(net)["0"]
    whole = rule.squared_sum(found.inputs["0"], found.grads["0"])
    monkeypatch.setattr("wiu_pyro.curvature.rules.base.MAX_ELEMENTS", 1)
    torch.testing.assert_close(rule.squared_sum(found.inputs["0"], found.grads["0"]), whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_split_undoes_join(name):
    net, _ = build(name)
    for rule in rules_of(net).values():
        values = {key: torch.randn(2, *shape) for key, shape in rule.shapes.items()}
        flat = rule.join(values)
        assert flat.shape == (2, rule.numel)
        for key, value in rule.split(flat).items():
            assert torch.equal(value, values[key])


@pytest.mark.parametrize("kept", ["weight", "bias"])
@pytest.mark.parametrize("name", ["linear", "stride-padding", "grouped", "transposed-all"])
def test_layer_with_a_prior_on_one_of_its_parameters_keeps_that_part_of_the_jacobian(name, kept):
    net, x = build(name)
    found = captured(net, x, unit_columns)
    layer, whole = next(iter(rules_of(net).items()))
    part = rule_for(whole.module, {kept: whole.shapes[kept]})
    values = whole.split(whole.jacobian(found.inputs[layer], found.grads[layer]))
    torch.testing.assert_close(part.jacobian(found.inputs[layer], found.grads[layer]), part.join({kept: values[kept]}))


def test_subclass_of_a_covered_layer_is_covered():
    special = type("Special", (nn.Linear,), {})
    assert isinstance(rule_for(special(2, 3), {"weight": (3, 2)}), MatrixRule)


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (nn.PReLU(), {"weight": (1,)}),
        (nn.Linear(2, 3), {"weight": (3, 2), "scale": (3,)}),
        (None, {"weight": (3,)}),
    ],
)
def test_parameters_that_no_type_knows_are_differentiated_directly(module, shapes):
    assert isinstance(rule_for(module, shapes), DirectRule)


def test_direct_rule_outside_of_a_pass_says_so():
    rule = rule_for(nn.PReLU(), {"weight": (1,)})
    with pytest.raises(CurvatureError, match="only while a pass over the data is under way, but none is"):
        rule.jacobian(torch.zeros(2, 2), torch.zeros(1, 2, 3))
