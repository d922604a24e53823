"""Running statistics of normalisation layers, computed again at given weights (Izmailov et al. 2018, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from wiu_pyro.nn import evaluation_mode, run_at, weight_module

__all__ = ["move_running_statistics", "recompute_running_statistics", "tracking_layers"]


def tracking_layers(model: Callable[..., Any]) -> list[_NormBase]:
    """Return a model's normalisation layers that keep running statistics."""
    root = weight_module(model)
    modules = [] if root is None else list(root.modules())
    return [one for one in modules if isinstance(one, _NormBase) and one.track_running_stats]


def recompute_running_statistics(
    model: Callable[..., Any],
    weights: Mapping[str, torch.Tensor] | Callable[[tuple[torch.Tensor, ...]], Mapping[str, torch.Tensor]],
    batches: Iterable[tuple[torch.Tensor, ...]],
) -> None:
    """Let normalisation layers hold the mean statistics of one pass over the data at given weights.

    Without such layers nothing is done, and no batch is asked for.

    Parameters
    ----------
    model : callable
        A Pyro model.
    weights : mapping of site to Tensor, or callable
        A callable gives those of a batch: draws, for the mean statistics over a distribution.
    batches : iterable of tuple of Tensor
        What the model is called with.
    """
    layers = tracking_layers(model)
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
    with _tracking(model, layers, momentum=None), torch.no_grad():  # the mean over all batches
        for batch in batches:
            run_at(model, dict(weights(batch) if callable(weights) else weights), batch)


def move_running_statistics(
    model: Callable[..., Any], weights: Mapping[str, torch.Tensor], batch: tuple[torch.Tensor, ...], *, by: float
) -> None:
    """Move the running statistics of normalisation layers towards those of one batch at given weights.

    Parameters
    ----------
    model : callable
        A Pyro model.
    weights : mapping of site to Tensor
    batch : tuple of Tensor
        What the model is called with.
    by : float
        The part of the way.
    """
    with _tracking(model, tracking_layers(model), momentum=by), torch.no_grad():
        run_at(model, dict(weights), batch)


@contextmanager
def _tracking(model: Callable[..., Any], layers: Sequence[_NormBase], *, momentum: float | None) -> Iterator[None]:
    """Let layers take up the statistics of what passes them, the network in evaluation mode otherwise."""
    before = {layer: layer.momentum for layer in layers}
    with evaluation_mode(model):
        for layer in layers:
            layer.momentum, layer.training = momentum, True
        try:
            yield
        finally:
            for layer, own in before.items():
                layer.momentum, layer.training = own, False
