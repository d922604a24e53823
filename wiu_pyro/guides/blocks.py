"""`BlockNormal`: the Normal distribution over a flat vector whose precision is block diagonal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from wiu_pyro.curvature import LayerRule
from wiu_pyro.linalg import Precision

__all__ = ["Block", "BlockNormal"]

CACHED_ELEMENTS = 2**21  # of draws made at once


@dataclass(frozen=True)
class Block:
    """An independent part of a Gaussian posterior.

    Attributes
    ----------
    layers : tuple of str
        The layers it spans.
    structure : str
        ``"kfac"``, ``"ekfac"``, ``"diagonal"`` or ``"full"``; ``"mean-field"``, ``"low-rank"`` or
        ``"matrix-normal"`` of other guides.
    precision : Precision
        Of shape (numel, numel).
    index : Tensor of int64, shape (numel,)
        Where its variables stand in the flat vector.
    rules : dict of str to LayerRule
        How each of its layers enters the curvature, in the block's order; empty where no Jacobian is to be had.
    entries : Tensor of int64, shape (numel,), or None
        Where its variables stand among all weights of its layers, joined in the order of `rules`; None where it has
        all of them. Weights that no block has are fixed at the mean.
    """

    layers: tuple[str, ...]
    structure: str
    precision: Precision
    index: torch.Tensor
    rules: dict[str, LayerRule] = field(default_factory=dict, repr=False)
    entries: torch.Tensor | None = None


class BlockNormal(dist.TorchDistribution):
    """Normal distribution over a flat vector whose precision is block diagonal.

    Parameters
    ----------
    loc : Tensor, shape (numel,)
    blocks : tuple of Block
        Each entry is in one of them at most; one that is in none is fixed at `loc`, and counts in no density.
    batch_shape : Size
        Independent copies, for vectorised plates.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: torch.Tensor,
        blocks: tuple[Block, ...],
        batch_shape: torch.Size = torch.Size(),  # noqa: B008
    ) -> None:
        self.loc = loc
        self.blocks = blocks
        super().__init__(batch_shape, loc.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> BlockNormal:
        """Return independent copies."""
        return BlockNormal(self.loc, self.blocks, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Return draws of shape (*sample_shape, *batch_shape, numel)."""
        shape = self._extended_shape(sample_shape)
        draws = self.loc.expand(shape).clone(memory_format=torch.contiguous_format).view(-1, shape[-1])
        for block in self.blocks:
            centre = self.loc[block.index]
            for some in draws.split(max(1, CACHED_ELEMENTS // len(block.index))):
                noise = torch.randn(len(some), len(centre), dtype=centre.dtype, device=centre.device)
                some[:, block.index] = centre + block.precision.colour(noise)
        return draws.view(shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log density at values of shape (..., numel), in float64 nats."""
        delta = value - self.loc
        return sum(block.precision.log_prob(delta[..., block.index]) for block in self.blocks)

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, a float64 scalar."""
        return sum(block.precision.entropy() for block in self.blocks)

    def log_det(self) -> torch.Tensor:
        """Return the log determinant of the precision, a float64 scalar."""
        return sum(block.precision.log_det() for block in self.blocks)

    def covariance(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return covariances between entries, 0 between blocks and where a weight is fixed.

        Parameters
        ----------
        rows, columns : Tensor of int64, shapes (num_rows,) and (num_columns,)
            Places in the flat vector.

        Returns
        -------
        Tensor, shape (num_rows, num_columns)
        """
        found = self.loc.new_zeros(len(rows), len(columns))
        place = torch.empty(len(self.loc), dtype=torch.long, device=self.loc.device)
        for block in self.blocks:
            place.fill_(-1)
            place[block.index] = torch.arange(len(block.index), device=place.device)
            one, two = ((place[index] >= 0).nonzero()[:, 0] for index in (rows, columns))
            if len(one) and len(two):
                found[one[:, None], two] = block.precision.covariance_between(place[rows[one]], place[columns[two]])
        return found

    @property
    def mean(self) -> torch.Tensor:
        """The mean, shape (*batch_shape, numel)."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> torch.Tensor:
        """The marginal variances, shape (*batch_shape, numel); 0 where a weight is fixed."""
        values = torch.zeros_like(self.loc)
        for block in self.blocks:
            values[block.index] = block.precision.variance()
        return values.expand(self.batch_shape + self.event_shape)
