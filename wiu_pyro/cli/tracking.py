"""What `wiu run` keeps of the layers through the training: how often, and of which guides by default."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

__all__ = ["from_plain", "plain", "track_of"]

RECORDS = 200  # about so many at most by default
POINT_RECORDS = 30  # of a point estimate, where each is a curvature pass over 1,000 images


def track_of(guide: Any, epochs: int, every: int | None) -> Any:
    """Return the ``track=`` of a fit.

    Parameters
    ----------
    guide : AutoGuide
    epochs : int
    every : int or None
        Epochs from one record to the next, as asked for; 0 keeps none. None keeps up to about 200 of a posterior that
        factorises, which cost next to nothing, and about 30 of a point estimate that a Laplace guide trains.

    Returns
    -------
    TrackConfig or None
        None also for a plain point estimate, which has no posterior to follow.
    """
    from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal

    from wiu_pyro.cli.point import is_laplace
    from wiu_pyro.guides import AutoPointEstimate
    from wiu_pyro.infer import TrackConfig

    if epochs == 0 or every == 0 or isinstance(guide, AutoDelta):
        return None
    if every is not None:
        return TrackConfig(every=every)
    if is_laplace(type(guide)) or isinstance(guide, AutoPointEstimate):
        return TrackConfig(every=max(1, epochs // POINT_RECORDS))
    factorised = getattr(guide, "factorised", False) or isinstance(guide, AutoNormal | AutoDiagonalNormal)
    return TrackConfig(every=max(1, epochs // RECORDS)) if factorised else None


def plain(track: Any) -> dict[str, Any]:
    """Return a `Track` as text, numbers, lists and tensors, which a file of torch holds."""
    import torch

    def value(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: value(own) for name, own in part.items()}
        if isinstance(part, tuple):
            return list(part)
        return torch.as_tensor(part) if isinstance(part, np.ndarray) else part

    return {field.name: value(getattr(track, field.name)) for field in dataclasses.fields(track)}


def from_plain(held: dict[str, Any]) -> Any:
    """Return the `Track` that `plain` wrote."""
    from wiu_pyro.infer import Track

    def value(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: value(own) for name, own in part.items()}
        if isinstance(part, list):
            return tuple(part)
        return part.numpy() if hasattr(part, "numpy") else part

    return Track(**{name: value(part) for name, part in held.items()})
