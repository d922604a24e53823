"""Convolutions and transposed convolutions as matrices on patches of their input (Grosse and Martens 2016)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from typing_extensions import override

from wiu_pyro.curvature.rules.matrix import MatrixRule

__all__ = ["Conv2dRule", "ConvRule", "ConvTransposeRule"]

CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the number of spatial dims


def windows(
    padded: torch.Tensor, kernel: tuple[int, ...], *, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Any:
    """Return a view of the windows a kernel slides over.

    Parameters
    ----------
    padded : Tensor, shape (batch, channels, *spatial)
    kernel, stride, dilation : tuple of int
        One number for each spatial dim.

    Returns
    -------
    Tensor, shape (batch, channels, *positions, *kernel)
    """
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        padded = padded.unfold(axis, spread * (size - 1) + 1, step)[..., ::spread]
    return padded


class ConvRule(MatrixRule):
    """`torch.nn.Conv1d`, `Conv2d` or `Conv3d` with any stride, padding, dilation and groups."""

    def padded(self, layer_input: torch.Tensor) -> torch.Tensor:
        """Return the input with its margin, shape (batch, channels, *spatial)."""
        conv: Any = self.module
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        return F.pad(layer_input, conv._reversed_padding_repeated_twice, mode=mode)

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        found = windows(self.padded(layer_input), conv.kernel_size, stride=conv.stride, dilation=conv.dilation)
        return self._as_patches(found)

    def _as_patches(self, found: torch.Tensor) -> torch.Tensor:
        # (batch, channels, *positions, *kernel) -> (batch, groups, positions, channels of the group * kernel)
        spatial = (found.dim() - 2) // 2
        split = found.unflatten(1, (self.groups, -1)).movedim(2, 2 + spatial)
        return split.flatten(2 + spatial).flatten(2, 1 + spatial)

    @override
    def project(self, layer_input: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        if "weight" not in self.shapes:
            return super().project(layer_input, matrix)
        conv: Any = self.module
        kernel, bias = (matrix[:, :-1], matrix[:, -1].flatten()) if "bias" in self.shapes else (matrix, None)
        kernel = kernel.mT.reshape(-1, *self.shapes["weight"][1:])  # (groups * k, in of the group, *kernel)
        padded = self.padded(layer_input)
        # a convolution by the matrix's columns: patches are never laid out
        found = CONVOLUTIONS[len(conv.kernel_size)](
            padded, kernel, bias, stride=conv.stride, dilation=conv.dilation, groups=self.groups
        )
        return found.reshape(len(padded), self.groups, matrix.shape[-1], -1).mT

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        columns, batch = grads.shape[:2]
        return grads.reshape(columns, batch, self.groups, self.out_features, -1).mT


class Conv2dRule(ConvRule):
    """`torch.nn.Conv2d`, by torch's own unfolding."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        padded = self.padded(layer_input)
        unfolded = F.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
        # (batch, groups * in, positions) -> (batch, groups, positions, in)
        return unfolded.reshape(len(layer_input), self.groups, -1, unfolded.shape[-1]).mT


class ConvTransposeRule(ConvRule):
    """`torch.nn.ConvTranspose1d`, `2d` or `3d`: a convolution of the input with zeros between its pixels.

    The weight has shape (in, out / groups, *kernel) and its kernel is flipped (Dumoulin and Visin 2016, section 4).
    """

    @override
    def project(self, layer_input: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return MatrixRule.project(self, layer_input, matrix)

    @override
    def _num_outputs(self) -> int:
        if "bias" in self.shapes:
            return self.shapes["bias"][0]
        return self.shapes["weight"][1] * self.groups

    @override
    def padded(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        sizes = [step * (size - 1) + 1 for size, step in zip(layer_input.shape[2:], conv.stride, strict=True)]
        spread = layer_input.new_zeros(*layer_input.shape[:2], *sizes)
        pixels = spread
        for axis, step in enumerate(conv.stride, start=2):
            pixels = pixels[(slice(None),) * axis + (slice(None, None, step),)]
        pixels.copy_(layer_input)
        margins: list[int] = []
        for axis in reversed(range(len(sizes))):  # the last dim first, as `pad` wants it
            margin = conv.dilation[axis] * (conv.kernel_size[axis] - 1) - conv.padding[axis]
            margins += [margin, margin + conv.output_padding[axis]]
        return F.pad(spread, margins)

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        ones = (1,) * len(conv.kernel_size)
        found = windows(self.padded(layer_input), conv.kernel_size, stride=ones, dilation=conv.dilation)
        return self._as_patches(found.flip(list(range(-len(ones), 0))))

    @override
    def _to_matrix(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name == "bias":
            return super()._to_matrix(name, value)
        # (..., in, out of the group, *kernel) -> (..., groups, out, in * kernel)
        lead = value.shape[: value.dim() - len(self.shapes[name])]
        weight = value.reshape(*lead, self.groups, -1, self.out_features, self._taps())
        return weight.transpose(-3, -2).flatten(-2)

    @override
    def _from_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        apart = weight.unflatten(-1, (-1, self._taps())).transpose(-3, -2)
        return apart.reshape(*weight.shape[:-3], *self.shapes["weight"])

    def _taps(self) -> int:
        return torch.Size(self.shapes["weight"][2:]).numel()
