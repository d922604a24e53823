"""One pass over the draws of a posterior: what is kept of each draw, and what is summed over all weights at once.

Memory holds one draw of all weights at a time, beside the kept subset, and of a guide of independent blocks some draws
of one block; it does not grow with the number of draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wiu_pyro import nn
from wiu_pyro.errors import GuideError
from wiu_pyro.export.block_draws import take_blocks
from wiu_pyro.export.densities import log_prior
from wiu_pyro.export.layout import Parameter
from wiu_pyro.export.scratch import room_for
from wiu_pyro.export.sources import Chain
from wiu_pyro.linalg import row_norms
from wiu_pyro.nn import ModelStructure

__all__ = ["ChainDraws", "SiteMoments", "collect", "estimate_moments", "prior_moments"]

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class SiteMoments:
    """Moments of one site: mean, marginal sd and, where known, conditional sd; each of the site's shape."""

    mean: torch.Tensor
    sd: torch.Tensor
    sd_conditional: torch.Tensor | None = None


@dataclass(frozen=True)
class ChainDraws:
    """What is kept of the draws of one network.

    Attributes
    ----------
    kept : dict of site to ndarray, shape (draw, *draw_shape)
        float32.
    scalars : dict of site to ndarray, shape (draw,)
        Sites that are no layer's, such as ``"noise_scale"``.
    deviation_rms : ndarray, shape (draw, layer)
        Over the weights that have a posterior; 0 for a layer at its point estimate.
    log_prior, log_q : ndarray, shape (draw,)
        float64, nats.
    """

    kept: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]
    deviation_rms: np.ndarray
    log_prior: np.ndarray
    log_q: np.ndarray


def prior_moments(structure: ModelStructure) -> dict[str, SiteMoments]:
    """Return mean and sd of the prior of each weight, by site.

    Parameters
    ----------
    structure : ModelStructure

    Returns
    -------
    dict of site to SiteMoments

    Raises
    ------
    PriorError
        If a prior has no finite, positive sd, or none of its own: one that depends on another site.
    """
    return {site: SiteMoments(*pair) for site, pair in nn.prior_moments(structure).items()}


def estimate_moments(draws: Iterable[Weights], sites: Iterable[str]) -> dict[str, SiteMoments]:
    """Return mean and sd of each site over a stream of draws (Welford 1962), in float64.

    Parameters
    ----------
    draws : iterable of mapping of site to Tensor
    sites : iterable of str

    Returns
    -------
    dict of site to SiteMoments

    Raises
    ------
    GuideError
        If there are fewer than 2 draws.
    """
    count, mean, square = 0, {}, {}
    sites = list(sites)
    for weights in draws:
        count += 1
        for site in sites:
            value = weights[site].detach().double()
            if count == 1:
                mean[site], square[site] = value.clone(), torch.zeros_like(value)
                continue
            before = value - mean[site]
            mean[site] += before / count
            square[site] += before * (value - mean[site])
    if count < 2:
        raise GuideError(
            f"At least 2 draws are needed to estimate a posterior sd, but there are {count}. Raise num_samples."
        )
    return {site: SiteMoments(mean[site], (square[site] / (count - 1)).sqrt()) for site in sites}


def collect(
    chain: Chain,
    layers: list[list[Parameter]],
    *,
    structure: ModelStructure,
    moments: Mapping[str, SiteMoments],
    priors: Mapping[str, SiteMoments],
    num_draws: int,
    scratch: Path | None = None,
) -> ChainDraws:
    """Go once over the draws of one network and keep what the file holds of them.

    Parameters
    ----------
    chain : Chain
    layers : list of list of Parameter
        The parameters of each layer.
    structure : ModelStructure
    moments, priors : mapping of site to SiteMoments
        Posterior and prior, for the deviation of a draw from its mean relative to the prior's sd.
    num_draws : int
    scratch : Path, optional
        A folder for kept draws that would take much memory.

    Returns
    -------
    ChainDraws
    """
    parameters = [parameter for layer in layers for parameter in layer]
    result = ChainDraws(
        kept=room_for({p.site: (num_draws, *p.draw_shape) for p in parameters}, scratch),
        scalars={site: np.empty(num_draws, np.float32) for site in structure.other_sites},
        deviation_rms=np.empty((num_draws, len(layers)), np.float32),
        log_prior=np.empty(num_draws),
        log_q=np.full(num_draws, np.nan),
    )
    uncertain = [max(1, sum(int((moments[p.site].sd > 0).sum()) for p in layer)) for layer in layers]
    if chain.blocks is not None:
        _by_block(chain, layers, result, structure=structure, moments=moments)
    else:
        _one_by_one(chain, layers, result, structure=structure, moments=moments, priors=priors)
    np.sqrt(result.deviation_rms / uncertain, out=result.deviation_rms)
    return result


def _by_block(
    chain: Chain,
    layers: list[list[Parameter]],
    result: ChainDraws,
    *,
    structure: ModelStructure,
    moments: Mapping[str, SiteMoments],
) -> None:
    """Fill in what is kept of the draws of independent blocks, of which the sums are known without the draws."""
    for parameter in (p for layer in layers for p in layer if p.site not in chain.blocks.places):
        result.kept[parameter.site][:] = _kept(parameter, moments[parameter.site].mean)
    for site, values in result.scalars.items():
        values[:] = float(chain.blocks.point_values[site])
    sums = take_blocks(
        chain.blocks, layers, structure, kept=result.kept, num_draws=len(result.log_q), seed=chain.draw_seed
    )
    result.deviation_rms[:] = np.stack([sums.squares[layer[0].layer] for layer in layers], axis=1)
    with np.errstate(invalid="ignore"):  # of a fit that diverged
        result.log_prior[:] = sums.log_prior + log_prior(structure)(chain.blocks.centre())
    result.log_q[:] = sums.log_q


def _one_by_one(
    chain: Chain,
    layers: list[list[Parameter]],
    result: ChainDraws,
    *,
    structure: ModelStructure,
    moments: Mapping[str, SiteMoments],
    priors: Mapping[str, SiteMoments],
) -> None:
    units = {p.site: _unit(moments[p.site], priors[p.site]) for layer in layers for p in layer}
    density = log_prior(structure)
    for draw, weights in enumerate(chain.draws()):
        for parameter in (p for layer in layers for p in layer):
            result.kept[parameter.site][draw] = _kept(parameter, weights[parameter.site])
        for site, values in result.scalars.items():
            values[draw] = float(weights[site])
        for position, layer in enumerate(layers):
            result.deviation_rms[draw, position] = _squared_deviation(layer, weights, moments, units)
        result.log_prior[draw] = density(weights)
        if chain.log_q is not None:
            result.log_q[draw] = float(chain.log_q(weights))


def _kept(parameter: Parameter, value: torch.Tensor) -> np.ndarray:
    """Return what is exported of one draw of a parameter, float32."""
    own = value.detach()
    if parameter.subset is not None:
        own = own.reshape(-1)[torch.as_tensor(parameter.subset, device=value.device)]
    return own.float().cpu().numpy()


def _squared_deviation(
    layer: list[Parameter], weights: Weights, moments: Mapping[str, SiteMoments], units: Weights
) -> float:
    """Return Σ ((weight − mean) / unit)² over a layer, to which weights at a point estimate add nothing."""
    total = 0.0
    for site in (parameter.site for parameter in layer):
        value = weights[site].detach()
        relative = (value - moments[site].mean.to(value)) / units[site].to(value)
        total += float(row_norms(relative.reshape(1, -1)))
    return total


def _unit(moments: SiteMoments, prior: SiteMoments) -> torch.Tensor:
    """Return what a site's deviations are shown relative to: the prior's sd; of an improper prior, the rms weight."""
    if not prior.sd.isnan().any():
        return prior.sd
    rms = (moments.mean.double().square() + moments.sd.double().square()).mean().sqrt()
    return rms if rms > 0 else torch.ones_like(rms)
