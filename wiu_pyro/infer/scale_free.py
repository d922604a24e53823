"""Layers whose scale says nothing, since their output goes straight into BatchNorm, at the scale of their prior.

A point estimate under a Normal prior shrinks such weights for as long as it is trained, as the network does not change.
For a posterior over them it does: noise of a given part of the prior's sd drowns them, and sds small beside them are
far from the prior's. Of all starts that are one network the one at the prior's scale has the most room.

References
----------
van Laarhoven (2017), L2 regularization versus batch and weight normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from wiu_pyro.guides.running_statistics import recompute_running_statistics, tracking_layers
from wiu_pyro.nn import Layer, ModelStructure, run_at

__all__ = ["at_prior_scale"]

Batch = tuple[torch.Tensor, ...]
SHRUNK = 0.5  # of the prior's scale; layers above it stay
SAME = 1e-3  # nats a datum: by so little may the network change


def at_prior_scale(
    model: Callable[..., Any],
    structure: ModelStructure,
    weights: Mapping[str, torch.Tensor],
    batch: Batch,
    *,
    log_likelihood: Callable[..., torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return weights of the same network, scale-free layers that have shrunk put back at the scale of their prior.

    BatchNorm's running statistics are left at those of the batch.

    Parameters
    ----------
    model : callable
        A Pyro model in evaluation mode.
    structure : ModelStructure
    weights : mapping of site to Tensor
    batch : tuple of Tensor
    log_likelihood : callable
        Of weights and a batch, scaled to the whole data, in nats.

    Returns
    -------
    dict of site to Tensor
        The weights as they were where they are not shrunk, or the network would be another one.
    """
    found = dict(weights)
    for layer in _before_batch_norm(model, structure.layers, weights, batch):
        factor = _growth(structure, layer, weights)
        if factor > 1 / SHRUNK:
            found |= {site: weights[site] * factor for site in layer.sites.values()}
    fits = []
    for one in (weights, found):
        recompute_running_statistics(model, one, [batch])
        with torch.no_grad():
            fits.append(log_likelihood(one, batch).item())
    same = abs(fits[0] - fits[1]) <= SAME * structure.num_data  # an output that something else reads too is not free
    return found if same else dict(weights)


def _growth(structure: ModelStructure, layer: Layer, weights: Mapping[str, torch.Tensor]) -> float:
    """Return the prior's root mean square of a layer's weight over that of its values; 1 under another prior."""
    site = layer.sites.get("weight")
    prior = None if site is None else structure.priors[site]
    if prior is None or prior.mean.any():
        return 1.0
    scale = (prior.variance.mean() / weights[site].square().mean()).sqrt().item()
    return scale if 0 < scale < float("inf") else 1.0


def _before_batch_norm(
    model: Callable[..., Any], layers: Sequence[Layer], weights: Mapping[str, torch.Tensor], batch: Batch
) -> list[Layer]:
    """Return the layers whose output is what BatchNorm reads."""
    given: dict[int, tuple[Layer, torch.Tensor]] = {}  # the tensors are held: an id may not be taken anew
    read: list[torch.Tensor] = []
    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            if layer.module is not None:
                keep = lambda _, __, output, layer=layer: given.__setitem__(id(output), (layer, output))  # noqa: E731
                hooks.callback(layer.module.register_forward_hook(keep).remove)
        for norm in tracking_layers(model):
            hooks.callback(norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])).remove)
        run_at(model, weights, batch)
    return [given[id(one)][0] for one in read if id(one) in given]
