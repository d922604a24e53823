"""What a guide is made for, and which guides Pyro's `SVI` cannot train, said where it tries."""

from __future__ import annotations

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger

from wiu_pyro.errors import GuideError, a_name

__all__ = ["refuse_svi", "refuse_uncallable"]


def refuse_uncallable(model: object) -> None:
    """Raise where a guide is made for what is no model.

    Parameters
    ----------
    model : object

    Raises
    ------
    GuideError
        If it cannot be called.
    """
    if isinstance(model, type) or not callable(model):
        raise GuideError(
            f"A guide is made for a Pyro model, but this is {a_name(model)}. Pass the model itself, for example "
            "wiu_pyro.nn.BayesianNetwork(net)."
        )


def refuse_svi(guide: AutoGuide) -> None:
    """Raise where a guide that has a training of its own is called in a step of Pyro's `SVI`.

    Parameters
    ----------
    guide : AutoGuide

    Raises
    ------
    GuideError
        If such a step is under way: `SVI` would collect the guide's parameters and move them by gradients of its own.
    """
    collecting = any(isinstance(handler, TraceMessenger) and handler.param_only for handler in _PYRO_STACK)
    if collecting and torch.is_grad_enabled():
        raise GuideError(
            f"Pyro's SVI trains guides by the gradient of its ELBO, but {type(guide).__name__} has a training of its "
            "own. Train it with wiu_pyro.fit; the trained guide works with Predictive and poutine."
        )
