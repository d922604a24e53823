"""Tables of vectors, looked up by index."""

from __future__ import annotations

from typing import Any

import torch
from typing_extensions import override

from wiu_pyro.curvature.rules.base import FlatRule

__all__ = ["EmbeddingRule"]


class EmbeddingRule(FlatRule):
    """`torch.nn.Embedding`: a datum's gradient at a row is the sum over the places where the datum has that index.

    The row at ``padding_idx`` has none, as in torch: its posterior is its prior.
    """

    def _kept(self, layer_input: torch.Tensor, grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # indices (batch, places), gradients (columns, batch, places, dim), nothing where the index is padding
        module: Any = self.module
        indices = layer_input.reshape(len(layer_input), -1).long()
        values = grads.reshape(*grads.shape[:2], indices.shape[1], grads.shape[-1])
        if module.padding_idx is not None:
            values = values * (indices != module.padding_idx)[:, :, None]
        return indices, values

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        indices, values = self._kept(layer_input, grads)
        rows, dim = self.shapes["weight"]
        batch = len(indices)
        places = (indices + rows * torch.arange(batch, device=indices.device)[:, None]).reshape(-1)
        total = values.new_zeros(len(grads), batch * rows, dim)
        total.index_add_(1, places, values.flatten(1, 2))
        return total.view(len(grads), batch, rows * dim).transpose(0, 1)

    @override
    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        indices, values = self._kept(layer_input, grads)
        rows, dim = self.shapes["weight"]
        # only the pairs (datum, index) that occur
        pairs = indices + rows * torch.arange(len(indices), device=indices.device)[:, None]
        found, place = pairs.reshape(-1).unique(return_inverse=True)
        sums = values.new_zeros(len(grads), len(found), dim).index_add_(1, place, values.flatten(1, 2))
        squares = sums.square().sum(0)
        return squares.new_zeros(rows, dim).index_add_(0, found % rows, squares).reshape(-1)
