"""A layer's whole block against Σ J' H J, formed by `torch.func` one datum at a time."""

from __future__ import annotations

import pytest
import torch

from tests.curvature.networks import build, captured, ggn_of_layer, rules_of
from wiu_pyro.curvature import FullLayerCurvature

NETWORKS = ("linear", "mlp", "no-bias", "sequence", "conv", "grouped", "depthwise", "batch-norm", "layer-norm-2d")


@pytest.mark.parametrize("limit", [2**24, 30])
@pytest.mark.parametrize("name", NETWORKS)
def test_block_of_a_layer_is_that_of_torch_func(name, limit, monkeypatch):
    monkeypatch.setattr("wiu_pyro.curvature.full.MAX_ELEMENTS", limit)
    net, x = build(name)
    found = captured(net, x, lambda likelihood, _: likelihood.sqrt_hessian())
    for layer, rule in rules_of(net).items():
        full = FullLayerCurvature(rule)
        full.update(found.inputs[layer], found.grads[layer])
        torch.testing.assert_close(full.matrix, ggn_of_layer(net, x, layer))


def test_block_of_a_layer_with_groups_that_is_used_once_is_that_of_torch_func():
    """A convolution as large as its image: groups share no input, but the curvature goes across them."""
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, groups=2), torch.nn.Flatten(), torch.nn.Tanh()).double()
    net.append(torch.nn.Linear(6, 3).double())
    x = torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = captured(net, x, lambda likelihood, _: likelihood.sqrt_hessian())
    full = FullLayerCurvature(rules_of(net)["0"])
    full.update(found.inputs["0"], found.grads["0"])
    torch.testing.assert_close(full.matrix, ggn_of_layer(net, x, "0"))
