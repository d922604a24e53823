"""What a network holds beside its sampled weights: parameters without a prior, and buffers such as running statistics.

A fit trains them where they stand, in the model; so a later fit of the same model moves them on. A posterior belongs to
the values at the end of its own fit.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from wiu_pyro.nn.structure import weight_module

__all__ = ["holding", "put_unsampled", "unsampled"]


def unsampled(model: Callable[..., Any], sites: Container[str]) -> dict[str, torch.Tensor]:
    """Return copies of a network's tensors that are no sites.

    Parameters
    ----------
    model : callable
        A Pyro model.
    sites : container of str
        Names of its latent sites.

    Returns
    -------
    dict of str to Tensor
        By dotted path; empty for a model that is no module.
    """
    return {name: value.detach().clone() for name, value in _tensors(model).items() if name not in sites}


def put_unsampled(model: Callable[..., Any], values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into a network's tensors of these names."""
    held = _tensors(model)
    with torch.no_grad():
        for name, value in values.items():
            held[name].copy_(value)


@contextmanager
def holding(model: Callable[..., Any], values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let a network hold `values` for a while, and afterwards again what it held before.

    Parameters
    ----------
    model : callable
    values : mapping of str to Tensor
        What `unsampled` returned.

    Yields
    ------
    None
    """
    held = _tensors(model)
    before = {name: held[name].detach().clone() for name in values}
    put_unsampled(model, values)
    try:
        yield
    finally:
        put_unsampled(model, before)


def _tensors(model: Callable[..., Any]) -> dict[str, torch.Tensor]:
    root = weight_module(model)
    return {} if root is None else {**dict(root.named_parameters()), **dict(root.named_buffers())}
