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

from wiu_pyro.curvature.gram import GramSum
from wiu_pyro.curvature.rules import Conv2dRule, MatrixRule

__all__ = ["InputProducts"]

MAX_PATCH_ELEMENTS = 2**21  # laid out at once: 8 MB in float32, within reach of a processor's cache
MAX_ROW_ELEMENTS = 2**23  # of the row products


class InputProducts:
    """The sum Σ a a' of one layer, over data and positions.

    Parameters
    ----------
    rule : MatrixRule
    """

    def __init__(self, rule: MatrixRule) -> None:
        self.rule = rule
        self._patches = GramSum()
        self._rows: _RowProducts | None = None

    def add(self, layer_input: torch.Tensor) -> int:
        """Add some data, shape (batch, *input_shape), and return how many uses of the weights that is."""
        if _rows_pay(self.rule, layer_input):
            if self._rows is not None and not self._rows.takes(layer_input):
                self.total()
            if self._rows is None:
                self._rows = _RowProducts(self.rule, layer_input)  # type: ignore[arg-type]
            return self._rows.add(layer_input)
        positions = self.rule.patches(layer_input[:1]).shape[2] if len(layer_input) else 0
        step = len(layer_input)
        if positions > 1:
            step = MAX_PATCH_ELEMENTS // (positions * self.rule.groups * self.rule.in_features)
        kinds = set(self.rule.shapes)
        laid_out = self.rule.patches if "weight" in kinds else self.rule.inputs  # of a bias alone: ones
        for part in layer_input.split(max(1, step)):
            rows = laid_out(part).transpose(0, 1).flatten(1, 2)  # (groups, uses, in)
            self._patches.add(rows, with_one=kinds == {"weight", "bias"})
        return len(layer_input) * positions

    def add_vectors(self, vectors: torch.Tensor) -> None:
        """Add what stands for some data, shape (groups, k, in)."""
        self._patches.add(vectors)

    def total(self) -> torch.Tensor | float:
        """Return the sum, shape (groups, in, in); 0.0 before any data."""
        if self._rows is not None:
            self.load(self._patches.total() + self._rows.matrix())
        return self._patches.total()

    def probes(self) -> list[torch.Tensor]:
        """Return sums of squares among the inputs, at no cost; none before any data."""
        squares = [] if self._rows is None else [self._rows.products[0].diagonal(dim1=-2, dim2=-1)]
        return self._patches.probes() + squares

    def load(self, total: torch.Tensor | float) -> None:
        """Put another sum in the place of this one."""
        self._rows = None
        self._patches.load(total)


def _rows_cover(rule: MatrixRule, layer_input: torch.Tensor) -> bool:
    """Return whether a layer's products can be read off those of its rows of pixels."""
    if not isinstance(rule, Conv2dRule) or "weight" not in rule.shapes or layer_input.dim() != 4:
        return False
    conv: Any = rule.module
    return rule.groups == 1 and set(conv.stride) == {1} and set(conv.dilation) == {1}


def _rows_pay(rule: MatrixRule, layer_input: torch.Tensor) -> bool:
    """Return whether row products also fit, and take less arithmetic than patches."""
    if not _rows_cover(rule, layer_input):
        return False
    conv: Any = rule.module
    (high, wide), channels = conv.kernel_size, layer_input.shape[1]
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    height, width = layer_input.shape[2] + top + bottom, layer_input.shape[3] + left + right
    rows = high * height * (width * channels) ** 2
    patches = (height - high + 1) * (width - wide + 1) * (channels * high * wide) ** 2
    return rows <= MAX_ROW_ELEMENTS and rows < patches


class _RowProducts:
    """Products of rows of pixels of a convolution's input, summed over the data.

    Attributes
    ----------
    products : Tensor, shape (kernel height, height, width * channels, width * channels)
        Of row u with row u + d, at [d, u]; zero where that is beyond the last.
    sums : Tensor, shape (height, width * channels)
        Of the pixels themselves.
    """

    def __init__(self, rule: Conv2dRule, layer_input: torch.Tensor) -> None:
        conv: Any = rule.module
        self.rule, self.kernel, self.shape = rule, conv.kernel_size, layer_input.shape[1:]
        padded = rule.padded(layer_input[:1])
        self.channels, self.height, self.width = padded.shape[1:]
        across = self.width * self.channels
        self.products = padded.new_zeros(self.kernel[0], self.height, across, across)
        self.sums = padded.new_zeros(self.height, across)
        self.uses = 0

    def takes(self, layer_input: torch.Tensor) -> bool:
        """Return whether data are images of the same size and type."""
        return layer_input.shape[1:] == self.shape and layer_input.dtype == self.sums.dtype

    def add(self, layer_input: torch.Tensor) -> int:
        """Add some data, and return how many uses of the weights that is."""
        rows = self.rule.padded(layer_input).permute(2, 0, 3, 1).flatten(2)  # (height, batch, width * channels)
        for below in range(self.kernel[0]):
            kept = self.height - below
            self.products[below, :kept] += rows[:kept].mT @ rows[below:]  # as in `gram`
        self.sums += rows.sum(1)
        uses = rows.shape[1] * (self.height - self.kernel[0] + 1) * (self.width - self.kernel[1] + 1)
        self.uses += uses
        return uses

    def matrix(self) -> torch.Tensor:
        """Return Σ a a', shape (1, in, in)."""
        high, wide = self.kernel
        tall, long = self.height - high + 1, self.width - wide + 1  # positions
        blocks = self.products.new_empty(high, wide, self.channels, high, wide, self.channels)
        common = self.products[:, high - 1 : tall].sum(1)  # of the rows that every kernel row's window has
        for upper in range(high):
            window = self.products[: high - upper, upper : upper + tall]
            if tall >= high:
                window = torch.cat([window[:, : high - 1 - upper], window[:, tall - upper :]], 1)
            summed = window.sum(1)  # (below, width * channels, width * channels)
            if tall >= high:
                summed += common[: high - upper]
            apart = summed.view(-1, self.width, self.channels, self.width, self.channels)
            pairs = _along_width(apart, wide, long)
            blocks[upper, :, :, upper:] = pairs.permute(1, 2, 0, 3, 4)
            blocks[upper:, :, :, upper] = pairs.permute(0, 3, 4, 1, 2)
        # (high, wide, channels) twice -> (channels, high, wide), as the weight has it
        matrix = blocks.permute(2, 0, 1, 5, 3, 4).reshape(1, self.channels * high * wide, -1)
        if "bias" not in self.rule.shapes:
            return matrix
        sums = self.sums.view(self.height, self.width, self.channels)
        return _with_bias(matrix, sums, self.kernel, count=self.uses)


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
