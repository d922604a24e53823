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
    "a_name",
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


def a_name(value: object) -> str:
    """Return what an object is, with its article, for the middle of a message.

    Parameters
    ----------
    value : object

    Returns
    -------
    str

    Examples
    --------
    >>> a_name([1]), a_name(1), a_name(int)
    ('a list', 'an int', 'the class int')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


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
    >>> near_matches("kfac", ["laplace-diag", "laplace-kfac"])
    "Did you mean 'laplace-kfac'? Known: laplace-diag, laplace-kfac."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if not close and len(name) > 2:  # part of a name
        close = [known for known in names if name in known][:2]
    hint = f"Did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
