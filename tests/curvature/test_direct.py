"""Layers that are differentiated datum by datum, against per-sample reverse mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.curvature.networks import CLASSES, DIFFERENTIATED, build, ggn_of_layer, jacobians, output_hessians
from wiu_pyro.errors import CurvatureError, ModelError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoLaplace
from wiu_pyro.infer import functional_distribution
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def path(name: str) -> str:
    return "" if name == "net" else name


def posterior_of(guide_class, net: nn.Module, x: torch.Tensor, **options):
    model = BayesianNetwork(net, prior=Normal(scale=1.0), num_data=len(x)).eval()
    return model, guide_class(model, **options).laplace_approximation(x, LABELS)


def own_jacobian(net: nn.Module, posterior, x: torch.Tensor, layer: str) -> torch.Tensor:
    names = [name for name in posterior.structure.layer_sites[layer].values()]
    leaves = {name: value for name, value in net.named_parameters() if name in names}
    rows = []
    for one in x:
        output = net(one[None])[0]
        grads = [torch.autograd.grad(value, list(leaves.values()), retain_graph=True) for value in output]
        found = [dict(zip(leaves, grad)) for grad in grads]
        own = posterior.structure.layer_sites[layer]
        rule = next(block.rules[layer] for block in posterior.blocks if layer in block.rules)
        rows.append(torch.stack([rule.join({key: each[site] for key, site in own.items()}) for each in found]))
    return torch.stack(rows)  # (batch, outputs, numel)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_diagonal_of_every_layer_is_that_of_the_ggn(name):
    net, x = build(name)
    _, posterior = posterior_of(AutoDiagonalLaplace, net, x)
    for block in posterior.blocks:
        (layer,) = block.layers
        jacobian = own_jacobian(net, posterior, x, layer)
        expected = torch.einsum("nci,ncd,ndi->i", jacobian, output_hessians(net, x), jacobian)
        torch.testing.assert_close(
            1 / block.precision.variance() - 1, expected, msg=lambda text, layer=layer: f"{layer}: {text}"
        )
