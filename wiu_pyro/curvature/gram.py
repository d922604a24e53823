"""Sums of outer products: of large ones only the lower triangle is computed, block by block, and mirrored when read."""

from __future__ import annotations

import torch

__all__ = ["GramSum"]

SMALLEST_BLOCK = 64  # columns of a block; smaller products are no faster for being part of a whole
MAX_BLOCKS = 6  # by the side: 21 products instead of 36
MULTIPLE = 16  # of a block's columns: whole vector registers


class GramSum:
    """The sum Σ_k r_k r_k' of one vector after another, by group.

    Examples
    --------
    >>> products = GramSum()
    >>> products.add(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]))
    >>> products.total().tolist()
    [[[1.0, 2.0], [2.0, 5.0]]]
    """

    def __init__(self) -> None:
        self._matrix: torch.Tensor | float = 0.0
        self._mirrored = True

    def add(self, rows: torch.Tensor, *, with_one: bool = False) -> None:
        """Add some vectors.

        Parameters
        ----------
        rows : Tensor, shape (groups, k, size)
            The vectors r_k of each group.
        with_one : bool
            Whether each goes on with a one, as the input of a layer with a bias does; the sum is larger by one.
        """
        groups, num, size = rows.shape
        if not isinstance(self._matrix, torch.Tensor):
            self._matrix = rows.new_zeros(groups, size + with_one, size + with_one)
        self._mirrored = False
        _add_lower(self._matrix[:, :size, :size], rows)
        if with_one:
            self._matrix[:, -1, :-1] += rows.sum(1)
            self._matrix[:, -1, -1] += num

    def total(self) -> torch.Tensor | float:
        """Return the sum, shape (groups, size, size); 0.0 before any vector."""
        if not self._mirrored:
            lower = self._matrix.tril(-1)  # type: ignore[union-attr]
            self._matrix.tril_().add_(lower.mT)  # type: ignore[union-attr]
            self._mirrored = True
        return self._matrix

    def probes(self) -> list[torch.Tensor]:
        """Return the diagonal, shape (groups, size), at no cost; none before any vector."""
        return [self._matrix.diagonal(dim1=-2, dim2=-1)] if isinstance(self._matrix, torch.Tensor) else []

    def load(self, total: torch.Tensor | float) -> None:
        """Put another sum in the place of this one; it is written over when vectors are added."""
        self._matrix, self._mirrored = total, True


def _add_lower(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add the products in place, at least those on and below the diagonal.

    The product comes first and is added as a whole: a product that adds to what is there, as BLAS offers it, rounds
    away the many small terms of data that a network is sure of, and the sum ends with eigenvalues below zero.
    """
    groups, num, size = rows.shape
    num_blocks = max(1, min(MAX_BLOCKS, size // SMALLEST_BLOCK)) if num >= size // 2 else 1
    if num_blocks == 1:
        total += rows.mT @ rows
        return
    width = -(-size // num_blocks // MULTIPLE) * MULTIPLE
    for matrix, vectors in zip(total, rows, strict=True):
        for start in range(0, size, width):
            stop = start + width
            matrix[start:, start:stop] += vectors[:, start:].mT @ vectors[:, start:stop]
