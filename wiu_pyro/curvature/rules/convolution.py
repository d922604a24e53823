"""Convolutions as matrices on unfolded patches (Grosse and Martens 2016)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from typing_extensions import override

from wiu_pyro.curvature.rules.matrix import MatrixRule

__all__ = ["Conv2dRule"]


class Conv2dRule(MatrixRule):
    """`torch.nn.Conv2d` with any stride, padding, dilation and groups, as a matrix on unfolded patches."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = F.pad(layer_input, conv._reversed_padding_repeated_twice, mode=mode)
        unfolded = F.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
        # (batch, groups * in, positions) -> (batch, groups, positions, in)
        return unfolded.reshape(len(layer_input), self.groups, -1, unfolded.shape[-1]).mT

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        columns, batch = grads.shape[:2]
        return grads.reshape(columns, batch, self.groups, self.out_features, -1).mT
