"""What a file says of the weights: one pass over the draws, then the groups of one layer after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from wiu_pyro.export import layer_groups
from wiu_pyro.export.attributes import posterior_attrs, structure_name
from wiu_pyro.export.draws import ChainDraws, SiteMoments, collect, estimate_moments, prior_moments
from wiu_pyro.export.layout import Parameter, layer_parameters
from wiu_pyro.export.sources import Source
from wiu_pyro.export.spectra import with_spectra
from wiu_pyro.schema import layer_group, moments_group

__all__ = ["WeightGroups"]


@dataclass(frozen=True)
class WeightGroups:
    """The weights of a posterior, ready to be written.

    Attributes
    ----------
    source : Source
    labels : mapping of str to str
        `model_name`, `data_name` and `input_scaling`.
    layers : list of list of Parameter
        The parameters of each layer.
    moments : list of dict of site to SiteMoments
        For each chain: exact, or from a first pass over the draws.
    priors : dict of site to SiteMoments
    chains : list of ChainDraws
    """

    source: Source
    labels: Mapping[str, str]
    layers: list[list[Parameter]]
    moments: list[dict[str, SiteMoments]]
    priors: dict[str, SiteMoments]
    chains: list[ChainDraws]

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        labels: Mapping[str, str],
        max_weights: int | None,
        subset_seed: int,
        scratch: Path | None = None,
    ) -> WeightGroups:
        """Go over the draws and return what is kept of them.

        Parameters
        ----------
        source : Source
        labels : mapping of str to str
        max_weights : int or None
            Of each parameter; a larger one is kept as a random subset.
        subset_seed : int
        scratch : Path, optional
            A folder for kept draws that would take much memory.

        Returns
        -------
        WeightGroups
        """
        layers = [
            layer_parameters(layer, max_weights=max_weights, subset_seed=subset_seed)
            for layer in source.structure.layers
        ]
        moments, priors = _moments(source), prior_moments(source.structure)
        options = {"structure": source.structure, "priors": priors, "num_draws": source.num_draws, "scratch": scratch}
        chains = [
            collect(chain, layers, moments=own, **options) for chain, own in zip(source.chains, moments, strict=True)
        ]
        return cls(source, labels, layers, moments, priors, chains)

    def head(self) -> dict[str, xr.Dataset]:
        """Return the groups that speak of all layers: `posterior`, `sample_stats` and `layers`."""
        attrs = posterior_attrs(self.source, labels=self.labels)
        structure = structure_name(self.source)
        return {
            "posterior": layer_groups.posterior_group(self.source, self.chains).assign_attrs(attrs),
            "sample_stats": layer_groups.sample_stats_group(self.source, self.chains),
            "layers": layer_groups.layers_group(
                self.source, self.chains, structure=structure, curvature=attrs["curvature"]
            ),
        }

    def by_layer(self) -> Iterator[tuple[str, xr.Dataset]]:
        """Yield the groups of each layer, made when they are asked for."""
        exact = self.source.chains[0].closed is not None
        factorised = self._factorised()
        for parameters in self.layers:
            name = parameters[0].layer
            moments = layer_groups.moments_group_of(
                parameters, self.moments, self.priors, exact=exact, factorised=factorised
            )
            yield layer_group(name), layer_groups.draws_group(parameters, self.chains)
            yield moments_group(name), with_spectra(name, moments, self.source.chains)

    def _factorised(self) -> bool:
        """Return whether all layers that have a posterior factorise."""
        sites = [[parameter.site for parameter in parameters] for parameters in self.layers]
        return all(
            layer_groups.is_factorised(chain, own)
            for chain in self.moments
            for own in sites
            if layer_groups.is_uncertain(chain, own)
        )


def _moments(source: Source) -> list[dict[str, SiteMoments]]:
    """Return the posterior's moments by site, for each chain: exact, or in a first pass over the draws."""
    sites = list(source.structure.parameter_sites)
    found = []
    for chain in source.chains:
        if chain.closed is None:
            estimated = estimate_moments(chain.draws(), sites)
            known = chain.conditional or {}
            found.append({site: replace(part, sd_conditional=known.get(site)) for site, part in estimated.items()})
            continue
        closed, conditional = chain.closed, chain.closed.sd_conditional or {}
        found.append({site: SiteMoments(closed.mean[site], closed.sd[site], conditional.get(site)) for site in sites})
    return found
