"""A Pyro model run at given weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger, unwrap
from torch import nn

__all__ = ["run_at"]


class _Detached(Messenger):
    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        msg["value"] = msg["value"].detach()


@contextmanager
def _held_parameters(model: Callable[..., Any]) -> Iterator[None]:
    """Keep what the model learns without a prior off the autograd graph: `pyro.param`, and parameters of modules."""
    model = unwrap(model)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    own = [(module._parameters, dict(module._parameters)) for module in modules]
    for parameters, values in own:
        # not requires_grad_(False): Pyro turns it on again where it reads a module's parameter
        parameters.update({name: value.detach() for name, value in values.items() if value is not None})  # type: ignore[misc]
    try:
        with _Detached():
            yield
    finally:
        for parameters, values in own:
            parameters.update(values)


def run_at(
    model: Callable[..., Any],
    weights: Mapping[str, torch.Tensor],
    batch: tuple[torch.Tensor, ...],
    *,
    hold_parameters: bool = False,
) -> tuple[poutine.Trace, Any]:
    """Run a model at given weights.

    Parameters
    ----------
    model : callable
        A Pyro model.
    weights : mapping of site to Tensor
    batch : tuple of Tensor
        What the model is called with.
    hold_parameters : bool
        Take what the model learns without a prior, a noise scale for example, for a constant.

    Returns
    -------
    trace : Trace
        Holds the observed site under its name; log-probabilities are not yet computed.
    output
        What the model returned.
    """
    # sites of the model keep their values; a trace outside sees them as observed
    with ExitStack() as stack:
        if hold_parameters:
            stack.enter_context(_held_parameters(model))
        handler = stack.enter_context(poutine.trace())
        stack.enter_context(poutine.condition(data=dict(weights)))
        output = model(*batch)
    return handler.trace, output
