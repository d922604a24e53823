r"""Σ a a' over data and positions: the input side of a layer's Kronecker factors, without laying out all patches.

A convolution's patches overlap: with stride 1 each product of two pixels stands in the sum once for each pair of kernel
places with that offset. `_by_rows` takes the products of each row of pixels with the rows below it once, summed over
the data, and reads all pairs off these: for a 5 x 5 kernel 5 row products in place of 25, and no patches. What is out
of the image at one kernel place and not at another comes in exactly, since rows and columns are summed over each
place's own window. Other layers' patches are laid out some data at a time.
"""

from __future__ import annotations

from typing import Any

import torch

from wiu_pyro.curvature.gram import add_gram
from wiu_pyro.curvature.rules import Conv2dRule, MatrixRule

__all__ = ["add_input_products"]

MAX_PATCH_ELEMENTS = 2**21  # laid out at once: 8 MB in float32, within reach of a processor's cache
MAX_ROW_ELEMENTS = 2**23  # of the row products


def add_input_products(
    total: torch.Tensor | float, rule: MatrixRule, layer_input: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Add Σ a a' over data and positions to a total.

    Parameters
    ----------
    total : Tensor, shape (groups, in, in), or 0.0
        0.0 for none yet.
    rule : MatrixRule
    layer_input : Tensor, shape (batch, *input_shape)

    Returns
    -------
    total : Tensor, shape (groups, in, in)
    uses : int
        Data times positions added.
    """
    if _rows_pay(rule, layer_input):
        products, uses = _by_rows(rule, layer_input)  # type: ignore[arg-type]
        return total + products, uses
    num_patches = rule.patches(layer_input[:1]).shape[2] if len(layer_input) else 0
    step = max(1, MAX_PATCH_ELEMENTS // (num_patches * rule.groups * rule.in_features)) if num_patches > 1 else None
    for part in layer_input.split(step or max(1, len(layer_input))):
        total = _add_patches(total, rule, part)
    return total, len(layer_input) * num_patches  # type: ignore[return-value]


def _add_patches(total: torch.Tensor | float, rule: MatrixRule, layer_input: torch.Tensor) -> torch.Tensor:
    """Add the products of patches that are laid out; those with the ones of a bias are sums."""
    rows = (rule.patches if "weight" in rule.shapes else rule.inputs)(layer_input)
    rows = rows.transpose(0, 1).flatten(1, 2)  # (groups, uses, in)
    if set(rule.shapes) != {"weight", "bias"}:
        return add_gram(total, rows)
    if not isinstance(total, torch.Tensor):
        total = rows.new_zeros(rule.groups, rule.in_features, rule.in_features)
    add_gram(total[:, :-1, :-1], rows)
    sums = rows.sum(1)
    total[:, -1, :-1] += sums
    total[:, :-1, -1] += sums
    total[:, -1, -1] += rows.shape[1]
    return total


def _rows_pay(rule: MatrixRule, layer_input: torch.Tensor) -> bool:
    """Return whether a layer's row products can be had, fit, and take less arithmetic than patches."""
    if not isinstance(rule, Conv2dRule) or "weight" not in rule.shapes or layer_input.dim() != 4:
        return False
    conv: Any = rule.module
    if rule.groups > 1 or set(conv.stride) != {1} or set(conv.dilation) != {1}:
        return False
    (high, wide), channels = conv.kernel_size, layer_input.shape[1]
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    height, width = layer_input.shape[2] + top + bottom, layer_input.shape[3] + left + right
    rows = high * height * (width * channels) ** 2
    patches = (height - high + 1) * (width - wide + 1) * (channels * high * wide) ** 2
    return rows <= MAX_ROW_ELEMENTS and rows < patches and min(height - high, width - wide) >= 0


def _by_rows(rule: Conv2dRule, layer_input: torch.Tensor) -> tuple[torch.Tensor, int]:
    conv: Any = rule.module
    high, wide = conv.kernel_size
    pixels = rule.padded(layer_input).permute(2, 0, 3, 1).contiguous()  # (height, batch, width, channels)
    height, batch, width, channels = pixels.shape
    tall, long = height - high + 1, width - wide + 1  # positions
    flat = pixels.flatten(2)  # (height, batch, width * channels)
    # products[d, u]: Σ_n of row u with row u + d; zero where that is beyond the last
    products = flat.new_zeros(high, height, width * channels, width * channels)
    for below in range(high):
        torch.bmm(flat[: height - below].mT, flat[below:], out=products[below, : height - below])
    blocks = products.new_empty(high, wide, channels, high, wide, channels)
    common = products[:, high - 1 : tall].sum(1)  # the rows that every kernel row's window has
    for upper in range(high):
        window = products[: high - upper, upper : upper + tall]
        if tall >= high:
            window = torch.cat([window[:, : high - 1 - upper], window[:, tall - upper :]], 1)
            summed = window.sum(1) + common[: high - upper]
        else:
            summed = window.sum(1)  # (below, width * channels, width * channels)
        pairs = _along_width(summed.view(-1, width, channels, width, channels), wide, long)
        blocks[upper, :, :, upper:] = pairs.permute(1, 2, 0, 3, 4)
        blocks[upper:, :, :, upper] = pairs.permute(0, 3, 4, 1, 2)
    # (high, wide, channels) twice -> (channels, high, wide), as the weight has it
    matrix = blocks.permute(2, 0, 1, 5, 3, 4).reshape(1, channels * high * wide, -1)
    if "bias" in rule.shapes:
        matrix = _with_bias(matrix, flat.sum(1).view(height, width, channels), (high, wide), count=batch * tall * long)
    return matrix, batch * tall * long


def _along_width(products: torch.Tensor, wide: int, long: int) -> torch.Tensor:
    """Sum the products of pixels v and v' over the positions x with v = x + j and v' = x + j'.

    Parameters
    ----------
    products : Tensor, shape (below, width, channels, width, channels)
    wide, long : int
        The kernel's width, and the positions along a row.

    Returns
    -------
    Tensor, shape (below, wide, channels, wide, channels)
    """
    below, _, channels = products.shape[:3]
    first, left, one, right, other = products.stride()
    shape = (below, wide, channels, wide, channels, long)
    return products.as_strided(shape, (first, left, one, right, other, left + right)).sum(-1)


def _with_bias(matrix: torch.Tensor, sums: torch.Tensor, kernel: tuple[int, int], *, count: int) -> torch.Tensor:
    """Add the row and column of the bias: the pixels' sums over each kernel place's window, and the number of uses."""
    (high, wide), (height, width, _) = kernel, sums.shape
    windows = sums.unfold(0, height - high + 1, 1).unfold(1, width - wide + 1, 1)  # (high, wide, channels, tall, long)
    column = windows.sum((-2, -1)).permute(2, 0, 1).reshape(1, -1, 1)
    size = column.shape[1]
    joint = matrix.new_empty(1, size + 1, size + 1)
    joint[:, :size, :size] = matrix
    joint[:, :size, size:] = column
    joint[:, size:, :size] = column.mT
    joint[:, size, size] = count
    return joint
