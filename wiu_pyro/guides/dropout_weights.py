"""`DropoutWeights`: weights whose columns are dropped together, the distribution that Monte Carlo dropout samples.

With keep probability k a mask entry is 1/k with probability k, else 0, as torch scales it: its mean is 1 and its second
moment 1/k. A weight w under it has mean w and variance w² (1/k − 1) = w² p / (1 − p); under several independent masks
the second moments multiply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from wiu_pyro.errors import GuideError

__all__ = ["DropoutWeights", "Mask"]


@dataclass(frozen=True)
class Mask:
    """One mask over inputs, and the weights its entries multiply.

    Attributes
    ----------
    keep : float
        Probability of an entry to stay.
    size : int
        Number of entries.
    columns : tuple of (slice, Size, Tensor of int64)
        Of each site: place in the flat vector, shape, and the entry of each weight, broadcastable to that shape.
    """

    keep: float
    size: int
    columns: tuple[tuple[slice, torch.Size, torch.Tensor], ...]


class DropoutWeights(dist.TorchDistribution):
    """The distribution of a flat vector of weights under Bernoulli masks on layers' inputs.

    Parameters
    ----------
    loc : Tensor, shape (numel,)
        The weights, and their mean.
    masks : tuple of Mask
        Independent of each other.
    batch_shape : Size
        Independent copies, for vectorised plates.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: torch.Tensor,
        masks: tuple[Mask, ...],
        batch_shape: torch.Size = torch.Size(),  # noqa: B008
    ) -> None:
        self.loc, self.masks = loc, masks
        super().__init__(batch_shape, loc.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> DropoutWeights:
        """Return independent copies."""
        return DropoutWeights(self.loc, self.masks, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Return draws of shape (*sample_shape, *batch_shape, numel)."""
        shape = self._extended_shape(sample_shape)
        factors = torch.ones(shape, dtype=self.loc.dtype, device=self.loc.device).view(-1, shape[-1])
        for mask in self.masks:
            kept = torch.rand(len(factors), mask.size, device=self.loc.device) < mask.keep
            entries = kept.to(self.loc.dtype) / mask.keep  # (num_draws, size)
            for place, site_shape, columns in mask.columns:
                part = factors[:, place].view(-1, *site_shape) * entries[:, columns]
                factors[:, place] = part.reshape(len(factors), -1)
        return self.loc * factors.view(shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Raise: masks of zeros and ones have no density."""
        raise GuideError(
            "A density of the weights is needed here, but weights under dropout have none: their masks are discrete. "
            "Train AutoMCDropout with wiu_pyro.fit; Pyro's SVI needs a guide with a density, such as AutoMeanField."
        )

    @property
    def mean(self) -> torch.Tensor:
        """The mean, shape (*batch_shape, numel): the weights themselves."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> torch.Tensor:
        """The marginal variances, shape (*batch_shape, numel); 0 of weights that no mask multiplies."""
        second = torch.ones_like(self.loc)  # moment of the product of masks
        for mask in self.masks:
            for place, *_ in mask.columns:
                second[place] /= mask.keep
        return (self.loc.square() * (second - 1)).expand(self.batch_shape + self.event_shape)
