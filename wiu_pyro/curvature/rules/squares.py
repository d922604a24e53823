"""Squares of per-sample gradients of weights that serve several positions of a datum, summed over data and columns.

The gradient of a weight is Σ_t g_cto a_ti. With many positions it is formed and squared. With few, its square is summed
as Σ_ts (Σ_c g_cto g_cso) a_ti a_si, a matrix product over the data and the pairs of positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["summed_squares"]

CACHED_ELEMENTS = 2**19  # of per-sample gradients and what makes them: 2 MB in float32, the cache of a core


def summed_squares(inputs_of: Callable[[slice], torch.Tensor], in_features: int, outputs: torch.Tensor) -> torch.Tensor:
    """Return Σ_n Σ_c (Σ_t g_cnto a_nti)², a few data at a time, so that all of it stays in cache.

    Parameters
    ----------
    inputs_of : callable
        Returns the inputs a of some of the data, shape (batch, groups, positions, in).
    in_features : int
    outputs : Tensor, shape (columns, batch, groups, positions, out)
        The gradients g at the layer's outputs.

    Returns
    -------
    Tensor, shape (groups, out, in)
    """
    columns, batch, groups, positions, out = outputs.shape
    num_pairs = positions * (positions + 1) // 2
    if num_pairs <= columns * (positions + 1):  # as many products, or fewer
        add, each = _pairs, groups * num_pairs * (in_features + 2 * out)
    else:
        add, each = _formed, groups * (positions * in_features + columns * out * (positions + in_features))
    step = max(1, CACHED_ELEMENTS // each)
    total = outputs.new_zeros(groups, out, in_features)
    for start in range(0, batch, step):
        rows = slice(start, start + step)
        total += add(inputs_of(rows), outputs[:, rows])
    return total


def _formed(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    columns, _, _, _, out = outputs.shape
    lead = outputs.permute(1, 2, 0, 4, 3).flatten(2, 3)  # (batch, groups, columns * out, positions)
    joint = (lead @ inputs).unflatten(2, (columns, out))  # (batch, groups, columns, out, in)
    return joint.square_().sum((0, 2))


def _pairs(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    first, second = torch.triu_indices(inputs.shape[2], inputs.shape[2], device=outputs.device)
    own, patches = outputs.transpose(0, 2), inputs.transpose(0, 1)  # the groups in front
    products = own.new_zeros(*own.shape[:2], len(first), own.shape[-1])  # (groups, batch, pairs, out)
    for column in own.unbind(2):
        products.addcmul_(column[:, :, first], column[:, :, second])
    products *= (2.0 - (first == second).to(outputs.dtype))[:, None]  # the pair s, t as well
    pairs = patches[:, :, first] * patches[:, :, second]  # (groups, batch, pairs, in)
    return products.flatten(1, 2).mT @ pairs.flatten(1, 2)
