"""Which guides Pyro's `SVI` cannot train, said where it tries."""

from __future__ import annotations

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger

from wiu_pyro.errors import GuideError

__all__ = ["refuse_svi"]


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
