"""`AutoBlockNormal`: a Gaussian posterior made of independent blocks, each with its own precision matrix.

What `laplace_approximation` returns. A block is a layer (Kronecker-factored or diagonal) or the whole network (full);
it reads the entries of the flat vector of all weights at its `index`. Sites left at a point estimate are sampled as
Deltas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from wiu_pyro.curvature import LayerRule
from wiu_pyro.guides.network_guide import NetworkGuide, visible
from wiu_pyro.linalg import Precision

__all__ = ["AutoBlockNormal", "Block", "BlockNormal", "CurvatureRecord"]


@dataclass(frozen=True)
class Block:
    """An independent part of a Gaussian posterior.

    Attributes
    ----------
    layers : tuple of str
        The layers it spans.
    structure : str
        ``"kfac"``, ``"diagonal"`` or ``"full"``.
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


@dataclass(frozen=True)
class CurvatureRecord:
    """How the curvature of a posterior was made.

    Attributes
    ----------
    kind : str
        ``"ggn"``, ``"fisher_mc"``, ``"fisher_empirical"`` or ``"hessian"``.
    num_data : float
        Data the posterior is for.
    num_seen : int
        Data the pass went over.
    scale : float
        Factor on the summed curvature: num_data / num_seen / temperature.
    """

    kind: str
    num_data: float
    num_seen: int
    scale: float


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
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        draws = torch.zeros_like(noise)
        for block in self.blocks:
            draws[..., block.index] = block.precision.colour(noise[..., block.index])
        return self.loc + draws

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log density at values of shape (..., numel), in float64 nats."""
        delta = value - self.loc
        return sum(block.precision.log_prob(delta[..., block.index]) for block in self.blocks)

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, a float64 scalar."""
        return sum(block.precision.entropy() for block in self.blocks)

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


class AutoBlockNormal(NetworkGuide):
    """The Gaussian guide of a Laplace approximation; made by ``laplace_approximation``, not by hand.

    Parameters
    ----------
    source : NetworkGuide
        The guide with the point estimate.
    point_sites : tuple of str
        Sites that stay at it.
    batch : tuple of Tensor
        One batch, to look at the model with.
    """

    default_predictive = "linearised"

    def __init__(self, source: NetworkGuide, *, point_sites: tuple[str, ...], batch: tuple[torch.Tensor, ...]) -> None:
        super().__init__(source.model, init_loc_fn=source._init_loc_fn, temperature=source.temperature)
        self.source_name = type(source).__name__
        self.cli_name = source.cli_name
        self.structure_name = source.structure_name
        self.point_sites = point_sites
        self._setup_prototype(*batch)
        point = source.point_estimate()
        self.point_values = {name: point[name].clone() for name in point_sites}
        self.register_buffer("loc", self.pack(point).detach().clone())
        self.blocks: tuple[Block, ...] = ()
        self.curvature: CurvatureRecord | None = None

    def _visible_model(self) -> Any:
        return visible(self.model, self.point_sites)

    def point_estimate(self) -> dict[str, torch.Tensor]:
        """Return the weights the posterior is built around, by site, sites at a point estimate too."""
        return {**super().point_estimate(), **self.point_values}

    def get_posterior(self, *args: Any, **kwargs: Any) -> BlockNormal:
        """Return the Gaussian over the flat vector of all weights."""
        return BlockNormal(self.loc, self.blocks)

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.get_posterior().variance.sqrt()

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Sample all weights; returns the value of each site."""
        values = super().forward(*args, **kwargs)
        for name, value in self.point_values.items():
            values[name] = pyro.sample(name, dist.Delta(value, event_dim=value.dim()))
        return values

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, a float64 scalar in nats; sites at a point estimate do not count."""
        return self.get_posterior().log_prob(self.pack(weights))
