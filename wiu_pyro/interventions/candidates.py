"""The weights that pruning chooses from, as flat vectors: moments of the posterior and what the prior says of each.

Biases stay: what is removed are the entries of weight matrices and kernels, parameters of two dims and more. Of these
only weights with a posterior are candidates; those at a point estimate beside them have no uncertainty to be ranked by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pyro.distributions as dist
import torch

from wiu_pyro.errors import ModelError
from wiu_pyro.export.sources import Chain, Source
from wiu_pyro.nn import base_distribution, is_improper

__all__ = ["Candidates", "read_candidates"]

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Candidates:
    """All prunable weights of one network, site after site.

    Attributes
    ----------
    centre : dict of site to Tensor
        Posterior mean of every site, biases and all; where the network stands.
    shapes : dict of site to Size
        Of the prunable sites, in the order of the vectors.
    layers : dict of site to str
    mean, sd, sd_conditional : Tensor, shape (num,)
        Float64, of the prunable sites; `sd` is marginal. `sd_conditional` is None where it is not known.
    chosen : Tensor of bool, shape (num,)
        Which of them are candidates.
    priors : dict of site to Distribution
        Of single weights, batch shape that of the site.
    fixed_priors : bool
        Whether these depend on no other site.
    factorised : bool
        Whether all weights are independent under the posterior.
    exact : bool
        Whether the moments are exact, not estimated from draws.
    """

    centre: dict[str, torch.Tensor]
    shapes: dict[str, torch.Size]
    layers: dict[str, str]
    mean: torch.Tensor
    sd: torch.Tensor
    sd_conditional: torch.Tensor | None
    chosen: torch.Tensor
    priors: dict[str, dist.Distribution]
    fixed_priors: bool
    factorised: bool
    exact: bool

    @cached_property
    def layer_names(self) -> list[str]:
        """The layers with candidates, in the network's order."""
        places = self.places
        return list(dict.fromkeys(self.layers[site] for site in self.shapes if self.chosen[places[site]].any()))

    @cached_property
    def improper(self) -> list[str]:
        """The prunable sites whose prior has no integral, and so no density to be held against."""
        return [site for site, prior in self.priors.items() if is_improper(prior)]

    @cached_property
    def places(self) -> dict[str, slice]:
        """Where each site stands in the vectors."""
        found, start = {}, 0
        for site, shape in self.shapes.items():
            found[site] = slice(start, start + shape.numel())
            start += shape.numel()
        return found

    def of_layer(self, layer: str) -> torch.Tensor:
        """Return which of the vectors' entries are candidates of one layer, bool of shape (num,)."""
        inside = torch.zeros_like(self.chosen)
        for site, place in self.places.items():
            inside[place] = self.layers[site] == layer
        return inside & self.chosen

    def by_site(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a vector of shape (num,) apart into the prunable sites' shapes."""
        return {site: values[place].view(self.shapes[site]) for site, place in self.places.items()}

    def log_prior(self, values: torch.Tensor) -> torch.Tensor:
        """Return the log prior density of each weight on its own, at values of shape (..., num), float64."""
        parts = []
        for site, place in self.places.items():
            shape = self.shapes[site]
            at = values[..., place].reshape(*values.shape[:-1], *shape)
            log_prob = self.priors[site].log_prob(at.to(self.centre[site].dtype))
            parts.append(log_prob.double().reshape(*values.shape[:-1], shape.numel()))
        return torch.cat(parts, -1)


def read_candidates(source: Source, chain: Chain) -> Candidates:
    """Return the prunable weights of one network.

    Parameters
    ----------
    source : Source
    chain : Chain
        One of the source's.

    Returns
    -------
    Candidates

    Raises
    ------
    ModelError
        If no parameter has two dims or more.
    """
    structure = source.structure
    mean, sd, conditional = _moments(chain)
    sites = structure.parameter_sites
    shapes = {site: mean[site].shape for site in sites if mean[site].dim() >= 2}
    if not shapes:
        raise ModelError(
            "Pruning takes entries of weight matrices and kernels, parameters of two dims or more, but the model has "
            f"none: {', '.join(sites)}. Give it a Linear or convolutional layer."
        )

    def flat(values: Weights) -> torch.Tensor:
        return torch.cat([values[site].detach().double().reshape(-1) for site in shapes])

    spread = flat(sd)
    uncertain = spread > 0
    centre = {**_others(source), **{site: value.detach() for site, value in mean.items()}}
    return Candidates(
        centre=centre,
        shapes=shapes,
        layers={site: sites[site][0] for site in shapes},
        mean=flat(mean),
        sd=spread,
        sd_conditional=None if conditional is None else flat(conditional),
        chosen=uncertain if uncertain.any() else torch.ones_like(uncertain),
        priors={site: base_distribution(structure.priors[site]).expand(shapes[site]) for site in shapes},
        fixed_priors=not set(shapes) & set(structure.dependent_priors),
        factorised=chain.closed is not None and chain.closed.factorised,
        exact=chain.closed is not None,
    )


def _others(source: Source) -> dict[str, torch.Tensor]:
    """Return the sites that are no weights, such as a scale, at the fit's centre."""
    point = {} if source.fit is None else source.fit.point_estimate
    return {site: point[site] for site in source.structure.other_sites if site in point}


def _moments(chain: Chain) -> tuple[Weights, Weights, Weights | None]:
    """Return mean, marginal and conditional sd by site: in closed form, else mean and sd of the draws."""
    if chain.closed is not None:
        return chain.closed.mean, chain.closed.sd, chain.closed.sd_conditional
    total: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    num = 0
    for draw in chain.draws():  # Welford's recursion: no draw is kept
        num += 1
        for site, value in draw.items():
            value = value.detach().double()
            before = total.setdefault(site, torch.zeros_like(value))
            change = value - before
            total[site] = before + change / num
            squares[site] = squares.get(site, 0.0) + change * (value - total[site])
    like = {site: value.dtype for site, value in draw.items()}
    mean = {site: value.to(like[site]) for site, value in total.items()}
    return mean, {site: (value / max(num - 1, 1)).sqrt() for site, value in squares.items()}, None
