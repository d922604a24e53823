"""Gaussian guides, the toolkit's and Pyro's own, read as independent blocks of the flat vector of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import autoguide

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.linalg import DensePrecision, DiagonalPrecision, LowRankCovariance, Precision
from wiu_pyro.nn import Layer, ModelStructure

__all__ = ["Gaussian", "layer_places", "read_gaussian"]


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian guide taken apart.

    Attributes
    ----------
    loc : Tensor, shape (numel,)
        The mean.
    blocks : tuple of Block
    places : dict of site to (slice, Size)
        Where it stands in the flat vector, and its shape.
    point_values : dict of site to Tensor
        Of the sites that are not in the flat vector.
    """

    loc: torch.Tensor
    blocks: tuple[Block, ...]
    places: dict[str, tuple[slice, torch.Size]]
    point_values: dict[str, torch.Tensor] = field(default_factory=dict)


def read_gaussian(guide: Any, structure: ModelStructure) -> Gaussian | None:
    """Return the mean and the blocks of a Gaussian guide, or None of a guide that is not known to be one.

    Parameters
    ----------
    guide : AutoGuide
    structure : ModelStructure

    Returns
    -------
    Gaussian or None

    Raises
    ------
    GuideError
        If the guide is a Laplace guide that has only its point estimate.
    """
    if isinstance(guide, LaplaceGuide | autoguide.AutoLaplaceApproximation):
        raise GuideError(
            f"{type(guide).__name__} is a point estimate until its curvature is known. Use the guide that "
            "laplace_approximation(data) returns, or fit it with wiu_pyro.fit."
        )
    if getattr(guide, "prototype_trace", None) is None:
        return None
    if isinstance(guide, AutoBlockNormal):
        places = {name: (place, shape) for name, place, shape in guide.sites()}
        return Gaussian(guide.loc, guide.blocks, places, guide.point_values)
    if isinstance(guide, autoguide.AutoNormal):
        return _read_auto_normal(guide, structure)
    if isinstance(guide, autoguide.AutoContinuous) and hasattr(guide, "loc"):
        return _read_auto_continuous(guide, structure)
    return None


def _read_auto_continuous(guide: Any, structure: ModelStructure) -> Gaussian | None:
    places, start = {}, 0
    for name, _ in guide.prototype_trace.iter_stochastic_nodes():
        shape = guide._unconstrained_shapes[name]
        places[name] = (slice(start, start + shape.numel()), shape)
        start += shape.numel()
    everything = torch.arange(start, device=guide.loc.device)
    precision: Precision
    if hasattr(guide, "gaussian_blocks"):
        return Gaussian(getattr(guide, "gaussian_mean", guide.loc), guide.gaussian_blocks(structure), places)
    if getattr(guide, "factorised", False):
        loc, scale = guide._loc_scale()
        point = {name: value.detach() for name, value in getattr(guide, "point_values", {}).items()}
        return Gaussian(loc, _by_layer(structure, places, scale, guide.structure_name), places, point)
    if isinstance(guide, autoguide.AutoDiagonalNormal):
        return Gaussian(guide.loc, _by_layer(structure, places, guide.scale, "mean-field"), places)
    names = tuple(layer.name for layer in structure.layers)
    if isinstance(guide, autoguide.AutoMultivariateNormal):
        factor = (guide.scale[:, None] * guide.scale_tril).double()
        precision = DensePrecision(torch.cholesky_inverse(factor), dtype=guide.loc.dtype)
        return Gaussian(guide.loc, (Block(names, "full", precision, everything),), places)
    if isinstance(guide, autoguide.AutoLowRankMultivariateNormal):
        scale = guide.scale
        precision = LowRankCovariance(guide.cov_factor * scale[:, None], scale * scale)
        return Gaussian(guide.loc, (Block(names, "low-rank", precision, everything),), places)
    return None


def _read_auto_normal(guide: Any, structure: ModelStructure) -> Gaussian:
    locs, scales, places, start = [], [], {}, 0
    for name, _ in guide.prototype_trace.iter_stochastic_nodes():
        loc, scale = guide._get_loc_and_scale(name)
        places[name] = (slice(start, start + loc.numel()), loc.shape)
        start += loc.numel()
        locs.append(loc.reshape(-1))
        scales.append(scale.expand(loc.shape).reshape(-1))
    return Gaussian(torch.cat(locs), _by_layer(structure, places, torch.cat(scales), "mean-field"), places)


def _by_layer(
    structure: ModelStructure, places: dict[str, tuple[slice, torch.Size]], scale: torch.Tensor, name: str
) -> tuple[Block, ...]:
    blocks = []
    for layer in structure.layers:
        if not set(layer.sites.values()) <= places.keys():  # held at a point estimate
            continue
        index = layer_places(layer, places, scale.device)
        blocks.append(Block((layer.name,), name, DiagonalPrecision(scale[index].square().reciprocal()), index))
    return tuple(blocks)


def layer_places(layer: Layer, places: dict[str, tuple[slice, torch.Size]], device: torch.device) -> torch.Tensor:
    """Return where a layer's weights stand in the flat vector, site by site, shape (num_weights,)."""
    ranges = [torch.arange(places[site][0].start, places[site][0].stop) for site in layer.sites.values()]
    return torch.cat(ranges).to(device)
