"""The elementwise scale and shift of normalisation layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from typing_extensions import override

from wiu_pyro.curvature.rules.base import FlatRule

__all__ = ["AffineRule"]


class AffineRule(FlatRule):
    """The scale and shift of BatchNorm (in evaluation), InstanceNorm, LayerNorm, RMSNorm and GroupNorm.

    One weight for each element of the normalised shape or each channel.
    """

    def _normalised(self, layer_input: torch.Tensor) -> torch.Tensor:
        module: Any = self.module
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(layer_input, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.RMSNorm):
            return F.rms_norm(layer_input, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(layer_input, module.num_groups, eps=module.eps)
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            own = module.training or module.running_mean is None  # else the statistics of training, in evaluation
            return F.instance_norm(
                layer_input, module.running_mean, module.running_var, use_input_stats=own, eps=module.eps
            )
        return F.batch_norm(layer_input, module.running_mean, module.running_var, training=False, eps=module.eps)

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        parts = []
        for name in self.shapes:
            products = grads * self._normalised(layer_input) if name == "weight" else grads
            if isinstance(self.module, nn.LayerNorm | nn.RMSNorm):
                # (columns, batch, ..., *shape): sum over the positions between
                kept = products.flatten(-len(self.module.normalized_shape))
                summed = kept.reshape(*grads.shape[:2], -1, kept.shape[-1]).sum(2)
            else:
                # (columns, batch, channels, ...)
                summed = products.reshape(*grads.shape[:3], -1).sum(-1)
            parts.append(summed)
        return torch.cat(parts, -1).transpose(0, 1)
