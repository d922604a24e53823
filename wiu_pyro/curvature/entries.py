"""Per-sample gradients of chosen single weights, without those of all others where that is cheaper."""

from __future__ import annotations

import torch

from wiu_pyro.curvature.rules import LayerRule, MatrixRule

__all__ = ["jacobian_of_entries"]


def jacobian_of_entries(
    rule: LayerRule, layer_input: torch.Tensor, grads: torch.Tensor, *, entries: torch.Tensor | None
) -> torch.Tensor:
    """Return per-sample gradients of some of a layer's weights.

    Parameters
    ----------
    rule : LayerRule
    layer_input : Tensor, shape (batch, *input_shape)
    grads : Tensor, shape (columns, batch, *output_shape)
    entries : Tensor of int64, shape (count,), or None
        Which weights, in the rule's order; all when None.

    Returns
    -------
    Tensor, shape (batch, columns, count)
    """
    if entries is None:
        return rule.jacobian(layer_input, grads)
    # a layer of another kind, or with a Jacobian of its own
    if not isinstance(rule, MatrixRule) or type(rule).jacobian is not MatrixRule.jacobian:
        return rule.jacobian(layer_input, grads)[..., entries]
    inputs, outputs = rule.inputs(layer_input), rule.output_grads(grads)
    positions = inputs.shape[2]
    if positions * len(entries) >= rule.numel:
        return rule.jacobian(layer_input, grads)[..., entries]
    row, column = entries // rule.in_features, entries % rule.in_features  # row: group and output
    group = row // rule.out_features
    inputs = inputs.transpose(1, 2).flatten(2)[..., group * rule.in_features + column]  # (batch, positions, count)
    outputs = outputs.transpose(2, 3).flatten(3)[..., row]  # (columns, batch, positions, count)
    return (outputs * inputs).sum(2).transpose(0, 1)
