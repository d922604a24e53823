"""Priors as the command line writes them: ``fan-in``, ``normal:0.1``, ``laplace:0.05``."""

from __future__ import annotations

import math
from typing import Any

from wiu_pyro.errors import ModelError, PriorError, near_matches

__all__ = ["PRIORS", "model_under", "parse_prior"]

PRIORS = ("fan-in", "normal:SCALE", "laplace:SCALE")


def parse_prior(text: str) -> tuple[str, float | None]:
    """Return name and scale of a prior, checked; nothing of torch is needed.

    Parameters
    ----------
    text : str

    Returns
    -------
    (str, float or None)

    Raises
    ------
    PriorError
        If it is none of those known.
    """
    name, colon, scale = text.partition(":")
    if text == "fan-in":
        return name, None
    if name not in ("normal", "laplace"):
        raise PriorError(f"Unknown prior '{text}'. {near_matches(text, PRIORS)}")
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not (colon and 0 < value < math.inf):
        raise PriorError(f"--prior {name} needs a positive scale after a colon, got '{text}'. For example {name}:0.1.")
    return name, value


def model_under(model: Any, text: str) -> Any:
    """Return the script's model under the prior of the command line.

    Parameters
    ----------
    model : BayesianNetwork
    text : str

    Returns
    -------
    BayesianNetwork

    Raises
    ------
    ModelError
        If the script's model is no `BayesianNetwork`.
    """
    from wiu_pyro import nn
    from wiu_pyro.nn.other_prior import under_prior

    name, scale = parse_prior(text)
    if not isinstance(model, nn.BayesianNetwork):
        raise ModelError(
            f"--prior sets the prior of a BayesianNetwork, but the script builds a {type(model).__name__}. "
            "Leave --prior out: the prior stands in the script."
        )
    if name == "fan-in":
        return under_prior(model, nn.FanInNormal())
    return under_prior(model, nn.Normal(scale) if name == "normal" else nn.Laplace(scale))
