r"""Gaussian posteriors over some of the layers: the others at the mean, or known to be there.

Of a joint Gaussian over several layers these are two posteriors. With the others *put* at the mean, the chosen layers
keep their marginal, the covariance :math:`(Λ^{-1})_{SS}`. With the others *known* to be at the mean they have the
conditional one, :math:`(Λ_{SS})^{-1}`: what a Laplace approximation of those layers alone is, around the same point
estimate and from the same curvature. Where layers are independent both are the layers' own blocks.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Collection
from dataclasses import replace

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoBlockNormal, tune_prior
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.gaussian import Gaussian, layer_places
from wiu_pyro.linalg import DensePrecision
from wiu_pyro.nn import ModelStructure

__all__ = ["are_independent", "conditional_guide", "is_tuned", "layer_of", "marginal_guide", "uncertain_layers"]

ANOTHER_PRIOR = ".*another than the one the weights were trained under.*"


def uncertain_layers(gaussian: Gaussian, structure: ModelStructure) -> tuple[str, ...]:
    """Return the layers that have a posterior, in the network's order."""
    covered = {name for block in gaussian.blocks for name in block.layers}
    return tuple(layer.name for layer in structure.layers if layer.name in covered)


def are_independent(gaussian: Gaussian) -> bool:
    """Return whether no block spans two layers."""
    return all(len(block.layers) == 1 for block in gaussian.blocks)


def layer_of(gaussian: Gaussian, structure: ModelStructure) -> torch.Tensor:
    """Return the number of the layer that each entry of the flat vector belongs to, −1 for none, shape (numel,)."""
    owner = torch.full((len(gaussian.loc),), -1, dtype=torch.long, device=gaussian.loc.device)
    for number, layer in enumerate(structure.layers):
        if set(layer.sites.values()) <= gaussian.places.keys():
            owner[layer_places(layer, gaussian.places, owner.device)] = number
    return owner


def marginal_guide(guide: AutoBlockNormal, layers: Collection[str]) -> AutoBlockNormal:
    """Return the posterior with all layers but some put at the mean.

    Parameters
    ----------
    guide : AutoBlockNormal
    layers : collection of str
        Those that stay uncertain.

    Returns
    -------
    AutoBlockNormal
    """
    return _cut(guide, layers, conditional=False)


def conditional_guide(guide: AutoBlockNormal, layers: Collection[str], *, tune: bool = False) -> AutoBlockNormal:
    """Return the Laplace posterior of some layers alone, around the same point estimate and from the same curvature.

    Parameters
    ----------
    guide : AutoBlockNormal
    layers : collection of str
    tune : bool
        Where the guide's prior was tuned by the evidence after the fit, tune it again for these layers. A prior that
        was found during the training, or by held-out data, stays.

    Returns
    -------
    AutoBlockNormal
    """
    found = _cut(guide, layers, conditional=True)
    if not tune or not is_tuned(guide):
        return found
    with warnings.catch_warnings():  # said when the guide itself was tuned
        warnings.filterwarnings("ignore", ANOTHER_PRIOR, UserWarning)
        return tune_prior(found, per=guide.prior_record.tuning.per)


def is_tuned(guide: AutoBlockNormal) -> bool:
    """Return whether the guide's prior was tuned by the evidence after the fit."""
    tuning = guide.prior_record.tuning
    return tuning is not None and tuning.by == "marginal-likelihood" and tuning.when == "after"


def _cut(guide: AutoBlockNormal, layers: Collection[str], *, conditional: bool) -> AutoBlockNormal:
    other = copy.copy(guide)
    other._buffers = dict(guide._buffers)
    cut = (_part(guide, block, layers, conditional=conditional) for block in guide.blocks)
    other.blocks = tuple(block for block in cut if block is not None)
    return other


def _part(guide: AutoBlockNormal, block: Block, layers: Collection[str], *, conditional: bool) -> Block | None:
    kept = tuple(name for name in block.layers if name in layers)
    if not kept or len(kept) == len(block.layers):
        return block if kept else None
    gaussian = Gaussian(guide.loc, guide.blocks, {name: (place, shape) for name, place, shape in guide.sites()})
    numbers = [number for number, layer in enumerate(guide.structure.layers) if layer.name in kept]
    owner = layer_of(gaussian, guide.structure)[block.index]
    held = torch.isin(owner, torch.tensor(numbers, device=owner.device)).nonzero()[:, 0]
    if not conditional:
        precision = block.precision.marginal(held)
    elif isinstance(block.precision, DensePrecision):
        precision = block.precision.conditional(held)
    else:
        raise GuideError(
            "A posterior of some layers alone needs a dense precision where layers are correlated, but this is a "
            f"{type(block.precision).__name__}. Use a Laplace guide of the toolkit's."
        )
    rules = {name: rule for name, rule in block.rules.items() if name in kept}
    entries = None if block.entries is None else _moved(block, kept, held)
    return replace(block, layers=kept, precision=precision, index=block.index[held], rules=rules, entries=entries)


def _moved(block: Block, kept: Collection[str], held: torch.Tensor) -> torch.Tensor:
    """Return where the variables kept stand among all weights of the layers kept."""
    shift, before, after = [], 0, 0
    for name, rule in block.rules.items():
        shift.append(after - before)
        before += rule.numel
        after += rule.numel if name in kept else 0
    ends = list(itertools.accumulate(rule.numel for rule in block.rules.values()))
    entries = block.entries[held]
    place = torch.bucketize(entries, torch.tensor(ends, device=entries.device), right=True)
    return entries + torch.tensor(shift, device=entries.device)[place]
