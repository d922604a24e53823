"""The elementwise scale and shift of normalisation layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from typing_extensions import override

from wiu_pyro.curvature.rules.base import LayerRule

__all__ = ["AffineRule"]


class AffineRule(LayerRule):
    """The scale and shift of BatchNorm (in evaluation), LayerNorm and GroupNorm: one weight per element or channel."""

    @override
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([values[name].flatten(-len(shape)) for name, shape in self.shapes.items()], -1)

    @override
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        values, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + torch.Size(shape).numel()
            values[name] = flat[..., start:stop].reshape(*flat.shape[:-1], *shape)
            start = stop
        return values

    def _normalised(self, layer_input: torch.Tensor) -> torch.Tensor:
        module: Any = self.module
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(layer_input, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(layer_input, module.num_groups, eps=module.eps)
        return F.batch_norm(layer_input, module.running_mean, module.running_var, training=False, eps=module.eps)

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        parts = []
        for name in self.shapes:
            products = grads * self._normalised(layer_input) if name == "weight" else grads
            if isinstance(self.module, nn.LayerNorm):  # (columns, batch, ..., *shape): sum over the positions between
                kept = products.flatten(-len(self.module.normalized_shape))
                summed = kept.reshape(*grads.shape[:2], -1, kept.shape[-1]).sum(2)
            else:  # (columns, batch, channels, ...)
                summed = products.reshape(*grads.shape[:3], -1).sum(-1)
            parts.append(summed)
        return torch.cat(parts, -1).transpose(0, 1)
