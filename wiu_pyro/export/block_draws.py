"""The draws of a Gaussian guide of independent blocks, block by block: what the file holds of them, without the draws.

A guide's draw is its mean and, for each block in turn, coloured noise. Each draw has a random generator of its own, so
that all draws of one block can be gone through before the next: they are those that `draw_weights` gives, to the
rounding of float32. Of a block, sums of squares come from the noise itself (`wiu_pyro.linalg.whitened_draws`), and only
the entries that the file keeps are turned back into weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wiu_pyro.export.layout import Parameter
from wiu_pyro.export.scratch import release
from wiu_pyro.guides import AutoBlockNormal, AutoMeanField
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.start import is_real
from wiu_pyro.infer.seeding import draw_seed
from wiu_pyro.linalg import DiagonalPrecision, WhitenedDraws, row_norms, whitened_draws
from wiu_pyro.nn import ModelStructure, base_distribution

__all__ = ["BlockSums", "GuideBlocks", "read_blocks", "take_blocks"]

BATCH_ELEMENTS = 2**23  # of noise held at once: 32 MB
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class GuideBlocks:
    """A guide taken apart into what its draws are made of.

    Attributes
    ----------
    loc : Tensor, shape (numel,)
    blocks : tuple of Block
        In the order in which a draw of the guide takes its noise.
    places : dict of site to slice
    shapes : dict of site to Size
    point_values : dict of site to Tensor
        Of sites that are no part of the draws.
    """

    loc: torch.Tensor
    blocks: tuple[Block, ...]
    places: dict[str, slice]
    shapes: dict[str, torch.Size]
    point_values: dict[str, torch.Tensor]

    def centre(self) -> dict[str, torch.Tensor]:
        """Return the mean of the draws, by site."""
        return {
            site: self.loc[place].view(self.shapes[site]) for site, place in self.places.items()
        } | self.point_values


@dataclass(frozen=True)
class BlockSums:
    """Sums over the weights of each draw.

    Attributes
    ----------
    squares : dict of layer to ndarray, shape (draw,)
        Σ ((weight − mean) / prior sd)².
    log_prior : ndarray, shape (draw,)
        Log prior density beyond that of the mean, nats.
    log_q : ndarray, shape (draw,)
        Nats.
    """

    squares: dict[str, np.ndarray]
    log_prior: np.ndarray
    log_q: np.ndarray


def read_blocks(guide: Any, structure: ModelStructure) -> GuideBlocks | None:
    """Return the blocks of a guide whose draws can be gone through block by block.

    Parameters
    ----------
    guide : AutoGuide or None
    structure : ModelStructure

    Returns
    -------
    GuideBlocks or None
        None of other guides, and where a weight's prior is not Normal, or depends on another site.
    """
    if type(guide) not in (AutoBlockNormal, AutoMeanField):
        return None
    places = {name: place for name, place, _ in guide.sites()}
    shapes = {name: shape for name, _, shape in guide.sites()}
    points = {name: value.detach() for name, value in guide.point_values.items()}
    layers = {site: layer.name for layer in structure.layers for site in layer.sites.values()}
    priors = [structure.priors[site] for site in places]
    if (
        not set(places) <= set(layers)
        or {*structure.parameter_sites, *structure.other_sites} != {*places, *points}
        or structure.dependent_priors
        or not all(type(base_distribution(prior)).__name__ == "Normal" and is_real(prior.support) for prior in priors)
    ):
        return None
    loc = guide.loc.detach()
    if isinstance(guide, AutoBlockNormal):
        return GuideBlocks(loc, guide.blocks, places, shapes, points)
    precision = guide.log_scale.detach().mul(-2).exp()
    blocks = [
        Block(
            (layers[site],),
            guide.structure_name,
            DiagonalPrecision(precision[place]),
            torch.arange(place.start, place.stop, device=loc.device),
        )
        for site, place in places.items()
    ]
    return GuideBlocks(loc, tuple(blocks), places, shapes, points)


def take_blocks(
    guide: GuideBlocks,
    layers: list[list[Parameter]],
    structure: ModelStructure,
    *,
    kept: Mapping[str, np.ndarray],
    num_draws: int,
    seed: int,
) -> BlockSums:
    r"""Go through all draws of each block in turn, and fill in what is kept of them.

    Parameters
    ----------
    guide : GuideBlocks
    layers : list of list of Parameter
        The parameters of each layer.
    structure : ModelStructure
    kept : mapping of site to ndarray, shape (draw, \*draw_shape)
        Filled in for the sites of the guide.
    num_draws, seed : int

    Returns
    -------
    BlockSums
    """
    device = guide.loc.device
    generators = [torch.Generator(device).manual_seed(draw_seed(seed, draw)) for draw in range(num_draws)]
    parameters = {p.site: p for layer in layers for p in layer if p.site in guide.places}
    for site, parameter in parameters.items():
        centre = guide.loc[guide.places[site]]
        centre = centre if parameter.subset is None else centre[torch.as_tensor(parameter.subset, device=device)]
        kept[site][:] = centre.float().cpu().numpy().reshape(parameter.draw_shape)
    squares = {layer[0].layer: np.zeros(num_draws) for layer in layers}
    log_prior, log_q = np.zeros(num_draws), np.zeros(num_draws)
    for block in guide.blocks:
        work = _Work.of(block, guide, structure, parameters)
        constant = float(block.precision.log_det()) / 2 - work.draws.precision.numel * HALF_LOG_TWO_PI
        for first, noise in _noise(len(block.index), generators, like=guide.loc):
            own = slice(first, first + len(noise))
            log_q[own] += constant - row_norms(noise).cpu().numpy() / 2
            coordinates = work.draws.coordinates(noise)
            norms = row_norms(coordinates)
            log_prior[own] -= ((coordinates @ work.centre).double() + norms / 2).cpu().numpy()
            for layer, among in work.layers.items():
                found = norms if among is None else row_norms(coordinates[:, among])
                squares[layer][own] += found.cpu().numpy()
            work.keep(coordinates, kept, own)
    return BlockSums(squares, log_prior, log_q)


def _noise(numel: int, generators: list[torch.Generator], *, like: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the noise of some draws at a time, (draws, numel), beside the number of the first; in one buffer."""
    step = min(len(generators), max(1, BATCH_ELEMENTS // numel))
    buffer = like.new_empty(step, numel)
    for first in range(0, len(generators), step):
        some = generators[first : first + step]
        for row, generator in zip(buffer, some):
            row.normal_(generator=generator)
        yield first, buffer[: len(some)]


@dataclass(frozen=True)
class _Work:
    """What is to be done with the draws of one block.

    Attributes
    ----------
    draws : WhitenedDraws
    centre : Tensor, shape (numel,)
        (mean − prior mean) / prior sd in the coordinates of the draws.
    layers : dict of str to (Tensor of int64 or None)
        Which of the variables are the layer's; None: all.
    values : Tensor
        Means of the variables of which the file keeps the draws.
    targets : list of (str, slice, ndarray of int)
        Site, place among `values`, and place among the site's kept entries.
    """

    draws: WhitenedDraws
    centre: torch.Tensor
    layers: dict[str, torch.Tensor | None]
    values: torch.Tensor
    targets: list[tuple[str, slice, np.ndarray]]

    @classmethod
    def of(
        cls, block: Block, guide: GuideBlocks, structure: ModelStructure, parameters: Mapping[str, Parameter]
    ) -> _Work:
        index, inside = block.index, _Inside(block.index)
        prior_loc, prior_scale = (guide.loc.new_ones(len(index)) for _ in range(2))
        layers: dict[str, list[torch.Tensor]] = {}
        entries, targets, held = [], [], 0
        for site, parameter in parameters.items():
            place = guide.places[site]
            own, flat = inside.find(torch.arange(place.start, place.stop, device=index.device))
            if not len(own):
                continue
            fn = base_distribution(structure.priors[site])
            prior_loc[own] = fn.loc.to(prior_loc).expand(parameter.shape).reshape(-1)[flat]
            prior_scale[own] = fn.scale.to(prior_scale).expand(parameter.shape).reshape(-1)[flat]
            layers.setdefault(parameter.layer, []).append(own)
            if parameter.subset is not None:
                own, flat = inside.find(torch.as_tensor(parameter.subset, device=index.device) + place.start)
            entries.append(own)
            targets.append((site, slice(held, held + len(own)), flat.cpu().numpy()))
            held += len(own)
        picked = torch.cat(entries)
        draws = whitened_draws(block.precision, prior_scale, picked)
        alone = len(layers) == 1
        return cls(
            draws,
            draws.rotated((guide.loc[index] - prior_loc) / prior_scale),
            {name: None if alone else torch.cat(parts) for name, parts in layers.items()},
            guide.loc[index[picked]],
            targets,
        )

    def keep(self, coordinates: torch.Tensor, kept: Mapping[str, np.ndarray], own: slice) -> None:
        """Write the kept entries of some draws."""
        values = (self.draws.entries(coordinates) + self.values).float().cpu().numpy()
        for site, place, columns in self.targets:
            rows = kept[site].reshape(len(kept[site]), -1)[own]
            if len(columns) == rows.shape[1]:  # all of them, in order
                rows[:] = values[:, place]
            else:
                rows[:, columns] = values[:, place]
            release(kept[site])


class _Inside:
    """Finds places of the flat vector in a block, whose variables stand at `index` of it."""

    def __init__(self, index: torch.Tensor) -> None:
        self.low = int(index.min())
        self.position = index.new_full((int(index.max()) - self.low + 1,), -1)
        self.position[index - self.low] = torch.arange(len(index), device=index.device)

    def find(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the positions in the block of those places that are in it, and which these are."""
        relative = places - self.low
        if not len(relative) or relative[0] >= len(self.position) or relative[-1] < 0:  # places ascend
            return relative[:0], relative[:0]
        which = ((relative >= 0) & (relative < len(self.position))).nonzero()[:, 0]
        found = self.position[relative[which]]
        held = found >= 0
        return found[held], which[held]
