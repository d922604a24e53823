"""The errors of the toolkit: one tree, each kind also a `ValueError` or a `RuntimeError`.

Catch `WiuError` for everything the toolkit says on purpose. A message has three parts: what was needed, what came,
and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CostError",
    "CurvatureError",
    "DataError",
    "DeviceError",
    "FitError",
    "GuideError",
    "LikelihoodError",
    "ModelError",
    "OutputError",
    "PriorError",
    "SchemaError",
    "WiuError",
    "near_matches",
]


class WiuError(Exception):
    """Base of all errors the toolkit raises on purpose."""


class DataError(WiuError, ValueError):
    """The data cannot be used: missing, empty, not finite, labels out of range."""


class ModelError(WiuError, ValueError):
    """The model or its script cannot be used: wrong output, tied weights, no observed site."""


class PriorError(WiuError, ValueError):
    """A prior is unknown, matches nothing, or is one the chosen posterior cannot take."""


class LikelihoodError(WiuError, ValueError):
    """The observed site's distribution is one the toolkit does not know."""


class GuideError(WiuError, ValueError):
    """A guide is unknown, not ready, or cannot do what was asked of it."""


class CurvatureError(WiuError, RuntimeError):
    """A curvature is not positive definite, not finite, or saw no data for a layer."""


class FitError(WiuError, RuntimeError):
    """Training broke: a loss or a weight stopped being finite."""


class SchemaError(WiuError, ValueError):
    """An InferenceData does not follow the data contract."""


class DeviceError(WiuError, RuntimeError):
    """The device asked for is not there."""


class OutputError(WiuError, RuntimeError):
    """A result cannot be written where it was asked for."""


class CostError(WiuError, RuntimeError):
    """What was asked for would not fit into memory."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a sentence that helps after an unknown name: the near matches, then all known names.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        The names that would have worked.

    Returns
    -------
    str
        For example ``"Did you mean 'mnist'? Known: digits, mnist."``.

    Examples
    --------
    >>> near_matches("mnst", ["digits", "mnist"])
    "Did you mean 'mnist'? Known: digits, mnist."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f"Did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
