"""Sums of outer products: where they are large, only the upper triangle is computed, block by block, and mirrored."""

from __future__ import annotations

import torch

__all__ = ["add_gram"]

SMALLEST_BLOCK = 96  # rows of a block; smaller products are no faster for being part of a whole
MAX_BLOCKS = 4  # by the side: 10 products instead of 16


def add_gram(total: torch.Tensor | float, rows: torch.Tensor) -> torch.Tensor:
    """Add Σ_k r_k r_k' to a symmetric total, in place where there is one.

    Parameters
    ----------
    total : Tensor, shape (groups, size, size), or 0.0
        Symmetric, may be part of a larger one; 0.0 for none yet.
    rows : Tensor, shape (groups, k, size)
        The vectors r_k of each group.

    Returns
    -------
    Tensor, shape (groups, size, size)
        The total.

    Examples
    --------
    >>> add_gram(0.0, torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])).tolist()
    [[[1.0, 2.0], [2.0, 5.0]]]
    """
    groups, num, size = rows.shape
    if not isinstance(total, torch.Tensor):
        total = rows.new_zeros(groups, size, size)
    num_blocks = max(1, min(MAX_BLOCKS, size // SMALLEST_BLOCK)) if num >= size // 2 else 1
    if num_blocks == 1 and groups > 1:
        return total.baddbmm_(rows.mT, rows)
    edges = [size * block // num_blocks for block in range(num_blocks + 1)]
    for matrix, vectors in zip(total, rows, strict=True):
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            matrix[start:stop, start:].addmm_(vectors[:, start:stop].mT, vectors[:, start:])
            matrix[stop:, start:stop] = matrix[start:stop, stop:].mT
    return total
