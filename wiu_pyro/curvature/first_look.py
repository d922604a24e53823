"""Which layers show their Jacobian by their input and output, found by one look at a few data.

A layer does where its own module is called, on data along the first dim, and its weights are used nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from wiu_pyro.curvature.direct import TOLERANCE, Batch, Forward, Sites, Weights
from wiu_pyro.curvature.layer_record import capture_layers, no_data_message, plain_attention
from wiu_pyro.curvature.rules import DirectRule, LayerRule
from wiu_pyro.errors import CurvatureError

__all__ = ["layers_to_differentiate"]

NUM_LOOKED_AT = 3  # data that the first look takes


def layers_to_differentiate(
    forward: Forward, weights: Weights, batch: Batch, *, rules: Mapping[str, LayerRule], sites: Sites
) -> frozenset[str]:
    """Return the layers whose Jacobian their own input and output do not show, by a look at a few data.

    A layer's rule stands when it gives, from what the first datum brings to the layer, the very gradient that reverse
    mode finds at its parameters, and no other datum's place in the layer has a part in it.

    Parameters
    ----------
    forward : callable
        Maps a batch and weights by site to the `OutputLikelihood`.
    weights : mapping of site to Tensor
    batch : tuple of Tensor
    rules : mapping of layer to LayerRule
    sites : mapping of layer to mapping of parameter to site

    Returns
    -------
    frozenset of str

    Raises
    ------
    CurvatureError
        If a layer's parameters do not shape the output.
    ModelError
        If a layer is called twice in one pass.
    """
    few = tuple(part[:NUM_LOOKED_AT] for part in batch)
    leaves = {site: weights[site].detach().clone().requires_grad_() for own in sites.values() for site in own.values()}
    modules = {name: rule.module for name, rule in rules.items() if not isinstance(rule, DirectRule)}
    with torch.enable_grad(), plain_attention(), capture_layers(modules) as record:
        output = forward(few, {**weights, **leaves}).output
    generator = torch.Generator().manual_seed(0)  # the user's random state stays as it is
    column = torch.zeros(output.shape, dtype=output.dtype)
    column[0] = torch.randn(output.shape[1:], generator=generator).to(output.dtype)
    targets = [*record.outputs.values(), *leaves.values()]
    found = torch.autograd.grad(output, targets, column.to(output.device), allow_unused=True)
    came_back = dict(zip(record.outputs, found, strict=False))
    at_sites = dict(zip(leaves, found[len(record.outputs) :], strict=True))
    needed = set()
    for name, rule in rules.items():
        gradients = {key: at_sites[site] for key, site in sites[name].items()}
        if all(gradient is None for gradient in gradients.values()):
            raise CurvatureError(no_data_message(name))
        expected = rule.join(
            {
                key: leaves[sites[name][key]].new_zeros(rule.shapes[key]) if gradient is None else gradient
                for key, gradient in gradients.items()
            }
        )
        grad = came_back.get(name)
        if grad is None or not _shown(rule, record.inputs[name], grad, expected=expected, num_data=len(few[0])):
            needed.add(name)
    return frozenset(needed)


def _shown(
    rule: LayerRule, layer_input: torch.Tensor, grad: torch.Tensor, *, expected: torch.Tensor, num_data: int
) -> bool:
    """Return whether input and output gradient of the first datum give the gradient at the parameters."""
    if len(layer_input) != num_data or len(grad) != num_data or grad[1:].any():
        return False
    found = rule.jacobian(layer_input[:1], grad[None, :1])[0, 0]
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
