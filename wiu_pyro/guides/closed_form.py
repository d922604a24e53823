"""Exact moments and KL of Gaussian guides, the toolkit's and Pyro's own, without a draw.

A Gaussian guide is read as blocks of the flat vector of weights, each with a precision matrix. From these come marginal
and conditional sds, and the KL of each layer's marginal from its prior. Layer KLs add up to the whole only where the
blocks are layers; the rest stands beside them as `kl_total`. A guide that is no Gaussian and knows its moments all the
same gives them itself: ``guide.moments(structure)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.gaussian import Gaussian, layer_places, read_gaussian
from wiu_pyro.guides.start import is_real
from wiu_pyro.linalg import (
    DiagonalPrecision,
    EigenbasisPrecision,
    Precision,
    kl_from_diagonal_normal,
)
from wiu_pyro.nn import Layer, ModelStructure, base_distribution, is_normal

__all__ = ["ClosedForm", "closed_form"]

KL_DRAWS = 64


@dataclass(frozen=True)
class ClosedForm:
    """Exact moments of a Gaussian posterior.

    Attributes
    ----------
    mean, sd, sd_conditional : dict of site to Tensor
        In the site's shape and units; `sd` is marginal, `sd_conditional` 1/√precision. Both are 0 for a weight at its
        point estimate. `sd_conditional` is None where it is not defined.
    layer_kl : dict of str to float
        KL of each layer's marginal from its prior, in nats, over those of its weights that have a posterior; NaN for a
        layer at its point estimate, and where the prior depends on another site, so that the layer's own prior has no
        density in closed form.
    layer_kl_se : dict of str to float
        Standard error, for layers whose prior is not Normal: there the KL comes by draws.
    kl_total : float
        KL of the whole posterior over the layers' weights, in nats; of those that have one.
    layer_structure : dict of str to str
        ``"mean-field"``, ``"diagonal"``, ``"kfac"``, ``"ekfac"``, ``"low-rank"``, ``"matrix-normal"`` (and which of
        its factors are diagonal), ``"full"``, or ``"point"`` for a layer at its point estimate.
    factorised : bool
        Whether all weights are independent, so that `sd_conditional` equals `sd`.
    layer_spectra : dict of str to (Tensor, Tensor)
        Of layers in a Kronecker eigenbasis: mean curvature along each direction of the outputs, (groups, out), and of
        the inputs, (groups, in), relative to the prior.
    kl_note : str
        What must be said of the KLs; empty where they are the KL from the prior and no more.
    """

    mean: dict[str, torch.Tensor]
    sd: dict[str, torch.Tensor]
    sd_conditional: dict[str, torch.Tensor] | None
    layer_kl: dict[str, float]
    kl_total: float
    layer_structure: dict[str, str]
    factorised: bool
    layer_kl_se: dict[str, float] = field(default_factory=dict)
    layer_spectra: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    kl_note: str = ""


def closed_form(guide: Any, structure: ModelStructure) -> ClosedForm | None:
    """Return the exact moments of a Gaussian guide.

    Parameters
    ----------
    guide : AutoGuide
        The toolkit's, or Pyro's AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal or
        AutoLowRankMultivariateNormal.
    structure : ModelStructure

    Returns
    -------
    ClosedForm or None
        None for a guide without a closed form.

    Raises
    ------
    GuideError
        If the guide is a Laplace guide that has only its point estimate, or has not been set up.
    """
    with torch.no_grad():
        if callable(getattr(guide, "moments", None)) and getattr(guide, "prototype_trace", None) is not None:
            return guide.moments(structure)
        gaussian = read_gaussian(guide, structure)
        if gaussian is None:
            return None
        return _moments(gaussian, structure)


def _moments(gaussian: Gaussian, structure: ModelStructure) -> ClosedForm:
    variance, conditional = torch.zeros_like(gaussian.loc), torch.zeros_like(gaussian.loc)
    for block in gaussian.blocks:
        variance[block.index] = block.precision.variance()
        conditional[block.index] = block.precision.conditional_variance()
    sites = [site for layer in structure.layers for site in layer.sites.values()]
    _refuse_bounded(gaussian, structure, sites)

    def by_site(values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {site: values[place].view(shape) for site, (place, shape) in gaussian.places.items() if site in sites}

    point = {site: value for site, value in gaussian.point_values.items() if site in sites}
    fixed = {site: torch.zeros_like(value) for site, value in point.items()}
    blocks = _blocks_by_layer(gaussian, structure)
    kl, errors = {}, {}
    for layer in structure.layers:
        block = blocks.get(layer.name)
        found = (math.nan, 0.0) if block is None else _layer_kl(gaussian, layer, structure, block, variance=variance)
        kl[layer.name], error = found
        if error:
            errors[layer.name] = error
    return ClosedForm(
        mean=by_site(gaussian.loc.detach()) | point,
        sd=by_site(variance.sqrt()) | fixed,
        sd_conditional=by_site(conditional.sqrt()) | fixed,
        layer_kl=kl,
        layer_kl_se=errors,
        kl_total=_total_kl(gaussian, structure, {name: kl[name] for name in blocks}),
        layer_structure={
            layer.name: blocks[layer.name].structure if layer.name in blocks else "point" for layer in structure.layers
        },
        factorised=all(isinstance(block.precision, DiagonalPrecision) for block in gaussian.blocks),
        layer_spectra={
            name: block.precision.spectra()
            for name, block in blocks.items()
            if isinstance(block.precision, EigenbasisPrecision)
        },
    )


def _refuse_bounded(gaussian: Gaussian, structure: ModelStructure, sites: list[str]) -> None:
    for site in sites:
        if site not in gaussian.point_values and not is_real(structure.priors[site].support):
            raise GuideError(
                f"Weights must take any real value, but the prior of '{site}' has a bounded support. "
                "Use a prior on the whole line, such as Normal or Laplace."
            )


def _blocks_by_layer(gaussian: Gaussian, structure: ModelStructure) -> dict[str, Block]:
    """Return the block of each layer, without those that stay at their point estimate."""
    blocks = {name: block for block in gaussian.blocks for name in block.layers}
    return {layer.name: blocks[layer.name] for layer in structure.layers if layer.name in blocks}


def _total_kl(gaussian: Gaussian, structure: ModelStructure, layer_kl: dict[str, float]) -> float:
    """Return the KL of the joint posterior over all layers: the layers' sum, and what one block holds between them."""
    total = sum(layer_kl.values())
    for block in gaussian.blocks:
        if len(block.layers) < 2:
            continue
        own = [_own_index(gaussian, layer, block) for layer in structure.layers if layer.name in block.layers]
        parts = [_marginal(gaussian, block, index) for index in own]
        whole = _marginal(gaussian, block, torch.cat(own))
        # KL(joint ‖ prior) − Σ KL(marginals ‖ prior): the total correlation, Σ H(marginal) − H(joint)
        total += float(sum(part.entropy() for part in parts) - whole.entropy())
    return float(total)


def _own_index(gaussian: Gaussian, layer: Layer, block: Block) -> torch.Tensor:
    """Return those entries of the flat vector that a block has of a layer."""
    index = layer_places(layer, gaussian.places, block.index.device)
    held = torch.zeros(len(gaussian.loc), dtype=torch.bool, device=index.device)
    held[block.index] = True
    return index[held[index]]


def _marginal(gaussian: Gaussian, block: Block, index: torch.Tensor) -> Precision:
    """Return the precision of the marginal over entries `index` of the flat vector, all of them within one block."""
    position = torch.empty(len(gaussian.loc), dtype=torch.long, device=index.device)
    position[block.index] = torch.arange(len(block.index), device=index.device)
    return block.precision.marginal(position[index])


def _layer_kl(
    gaussian: Gaussian, layer: Layer, structure: ModelStructure, block: Block, *, variance: torch.Tensor
) -> tuple[float, float]:
    """Return KL of a layer's marginal from its prior and its standard error, 0 where in closed form."""
    if set(layer.sites.values()) & set(structure.dependent_priors):
        return math.nan, 0.0
    if len(block.layers) > 1 or block.precision.numel > layer.num_weights:  # other layers, or sites of none
        index = _own_index(gaussian, layer, block)
        precision = _marginal(gaussian, block, index)
    else:
        index, precision = block.index, block.precision
    prior = _normal_prior(gaussian, layer, structure, index)
    if prior is not None:
        loc, scale = prior
        delta = gaussian.loc[index] - loc
        kl = kl_from_diagonal_normal(precision, delta, prior_precision=scale.double() ** -2, variance=variance[index])
        return kl.item(), 0.0
    draws = _layer_draws(gaussian, index, precision)
    flat = torch.zeros(KL_DRAWS, len(gaussian.loc), dtype=gaussian.loc.dtype, device=gaussian.loc.device)
    flat[:, index] = draws
    log_prior = torch.zeros(KL_DRAWS, dtype=torch.float64, device=flat.device)
    for site in layer.sites.values():
        place, shape = gaussian.places[site]
        log_prior += structure.priors[site].log_prob(flat[:, place].view(-1, *shape)).double()
    values = -precision.entropy() - log_prior
    return values.mean().item(), (values.std() / KL_DRAWS**0.5).item()


def _layer_draws(gaussian: Gaussian, index: torch.Tensor, precision: Precision) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = torch.randn(KL_DRAWS, len(index), dtype=gaussian.loc.dtype).to(gaussian.loc.device)
    return gaussian.loc[index] + precision.colour(noise)


def _normal_prior(
    gaussian: Gaussian, layer: Layer, structure: ModelStructure, index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return prior mean and sd of a layer's entries `index` of the flat vector; None unless all priors are Normal."""
    loc, scale = gaussian.loc.new_zeros(len(index)), gaussian.loc.new_ones(len(index))
    for site in layer.sites.values():
        if not is_normal(structure.priors[site]):
            return None
        fn = base_distribution(structure.priors[site])
        place, shape = gaussian.places[site]
        own = ((index >= place.start) & (index < place.stop)).nonzero()[:, 0]
        flat = index[own] - place.start
        loc[own] = fn.loc.to(loc).expand(shape).reshape(-1)[flat]
        scale[own] = fn.scale.to(scale).expand(shape).reshape(-1)[flat]
    return loc, scale
