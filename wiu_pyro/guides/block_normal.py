"""`AutoBlockNormal`: a Gaussian posterior made of independent blocks, each with its own precision matrix.

What `laplace_approximation` returns. A block is a layer (Kronecker-factored or diagonal) or the whole network (full);
it reads the entries of the flat vector of all weights at its `index`. Sites left at a point estimate are sampled as
Deltas. The prior is the model's until another is asked for: `AutoBlockNormal.with_prior` returns the posterior with the
same curvature under a wider or narrower prior, and `flat_prior` is the one in force.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from wiu_pyro.curvature import LayerRule
from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.blocks import Block, BlockNormal
from wiu_pyro.guides.network_guide import NetworkGuide, visible
from wiu_pyro.guides.prior_scales import PriorRecord, Scale, match_scales, scaled_structure
from wiu_pyro.linalg import kl_from_diagonal_normal

__all__ = ["AutoBlockNormal", "CurvatureRecord"]


@dataclass(frozen=True)
class CurvatureRecord:
    """How the curvature of a posterior was made.

    Attributes
    ----------
    kind : str
        ``"ggn"``, ``"ggn_truncated"``, ``"ggn_averaged"``, ``"fisher_mc"``, ``"fisher_empirical"`` or ``"hessian"``.
    num_data : float
        Data the posterior is for.
    num_seen : int
        Data the pass went over.
    scale : float
        Factor on the summed curvature: num_data / num_seen / temperature.
    log_likelihood : float or None
        Of all data at the point estimate, in nats, scaled by num_data / num_seen; None where the data had no labels.
    num_processes : int
        That shared the data.
    weight_sharing : str
        ``"expand"`` or ``"reduce"``: the form of the Kronecker factors, where there are any.
    column_tolerance : float
        What was allowed to be left out of each layer's gradients; 0 for nothing.
    columns_lost : float
        What was, of the layer that lost most; measured on part of the data, whose outputs the others' are held against.
    seconds : float or None
        Of the passes over the data, without the decompositions; of the part after the last stop, if there was one.
    peak_memory_bytes : int or None
        Most memory the process had held by then: tensors on a GPU, everything on the CPU.
    """

    kind: str
    num_data: float
    num_seen: int
    scale: float
    log_likelihood: float | None = None
    num_processes: int = 1
    weight_sharing: str = "expand"
    column_tolerance: float = 0.0
    columns_lost: float = 0.0
    seconds: float | None = field(default=None, compare=False)
    peak_memory_bytes: int | None = field(default=None, compare=False)


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
    objective = "-log joint density"  # that its point estimate was trained by

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
        self.set_prior_scales(source.prior_scales)
        self.structure = scaled_structure(self.structure, self.prior_scales)
        self.prior_record = PriorRecord(scales=self.prior_scales, trained=self.prior_scales)

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

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, a float64 scalar; weights at a point estimate do not count."""
        return self.get_posterior().entropy()

    def kl_to_prior(self) -> torch.Tensor:
        """Return the KL from the prior in force, in nats, a float64 scalar; weights at a point estimate aside."""
        prior = self.flat_prior()
        q, delta = prior.scale.double() ** -2, self.loc - prior.loc
        return sum(
            kl_from_diagonal_normal(block.precision, delta[block.index], prior_precision=q[block.index])
            for block in self.blocks
        )

    def covariance(
        self,
        first: tuple[str, Sequence[int] | torch.Tensor | None],
        second: tuple[str, Sequence[int] | torch.Tensor | None],
    ) -> torch.Tensor:
        """Return posterior covariances between weights of two sites.

        Parameters
        ----------
        first, second : tuple of str and (sequence of int, Tensor of int64, or None)
            A site, and flat indices into its value; None for all of it.

        Returns
        -------
        Tensor, shape (len(first indices), len(second indices))
            0 between independent blocks.

        Raises
        ------
        GuideError
            If a site has no posterior, or an index is out of range.

        Examples
        --------
        The covariance of two weights of one layer: ``guide.covariance(("fc1.weight", [0]), ("fc1.bias", [3]))``.
        """
        return self.get_posterior().covariance(self._places(*first), self._places(*second))

    def _places(self, site: str, index: Sequence[int] | torch.Tensor | None) -> torch.Tensor:
        places = {name: place for name, place, _ in self.sites()}
        if site not in places:
            raise GuideError(f"A site with a posterior is needed, but '{site}' has none. {near_matches(site, places)}")
        start, size = places[site].start, places[site].stop - places[site].start
        found = torch.arange(size) if index is None else torch.as_tensor(index).reshape(-1)
        if len(found) and not (0 <= found.min() and found.max() < size):
            raise GuideError(
                f"Flat indices into '{site}' run from 0 to {size - 1}, but {found.min()} … {found.max()} were given. "
                "Count them over the flattened weight; None stands for all."
            )
        return found.to(self.loc.device) + start

    def with_prior(self, scale: Scale | Mapping[str, Scale], *, record: PriorRecord | None = None) -> AutoBlockNormal:
        """Return the posterior with the same point estimate and curvature under another prior: no pass over the data.

        The model keeps its own prior; `flat_prior`, `kl_to_prior`, the export and its tables take the new one. The
        mean is not the mode under it: train on under that prior where the difference matters.

        Parameters
        ----------
        scale : float or mapping of pattern to float
            Multiplies the sd of the *model's* prior, whatever the present one is: 1 is the model's own. For all
            weights, or by layer or site name with ``*`` and ``?``, the first match wins; what none matches keeps its
            present prior.
        record : PriorRecord, optional
            What is to be noted of it; the scales and `previous` are filled in.

        Returns
        -------
        AutoBlockNormal

        Raises
        ------
        PriorError
            If a scale is not positive, a pattern matches nothing, or the structure cannot take such a prior.
        """
        asked = match_scales(scale, self.structure, self.posterior_sites())
        scales = {**self.prior_scales, **{site: float(value) for site, (_, value) in asked.items()}}
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        change = {site: value / self.prior_scales.get(site, 1.0) for site, value in scales.items()}
        other.structure = scaled_structure(self.structure, change)
        other.set_prior_scales(scales)
        precision = other.flat_prior().scale.double() ** -2
        other.blocks = tuple(
            replace(block, precision=block.precision.with_prior(precision[block.index])) for block in self.blocks
        )
        noted = record or PriorRecord()
        other.prior_record = replace(
            noted, scales=scales, trained=self.prior_record.trained, previous=self.prior_record
        )
        return other

    def layer_index(self, rule: LayerRule, sites: Mapping[str, str]) -> torch.Tensor:
        """Return where a layer's parameters stand in the flat vector, in the rule's order, shape (numel,)."""
        places = {name: (place, shape) for name, place, shape in self.sites()}
        positions = torch.arange(self.latent_dim, device=self.loc.device)
        return rule.join({key: positions[places[site][0]].view(places[site][1]) for key, site in sites.items()})

    def posterior_sites(self) -> list[str]:
        """Return the sites of which at least one weight has a posterior."""
        covered = torch.zeros(len(self.loc), dtype=torch.bool, device=self.loc.device)
        for block in self.blocks:
            covered[block.index] = True
        return [name for name, place, _ in self.sites() if covered[place].any()]
