"""Arguments of a model script, written behind its name: ``cifar_vgg:depth=16:width=0.5``.

They are the keyword-only parameters of the script's ``build``, and have the types of their defaults.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wiu_pyro.errors import ModelError, near_matches

__all__ = ["declared_arguments", "describe", "read_arguments", "split_arguments"]

ARGUMENTS = re.compile(r"((?::\w+=[^:]*)*)$")
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def split_arguments(text: str) -> tuple[str, dict[str, str]]:
    """Return the name or path of a script, and the arguments behind it.

    Parameters
    ----------
    text : str

    Returns
    -------
    name : str
    arguments : dict of str to str

    Raises
    ------
    ModelError
        If an argument is given twice.

    Examples
    --------
    >>> split_arguments("cifar_vgg:depth=16:width=0.5")
    ('cifar_vgg', {'depth': '16', 'width': '0.5'})
    """
    found = ARGUMENTS.search(text)
    behind = found[1] if found else ""
    pairs = [part.partition("=")[::2] for part in behind.split(":")[1:]]
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ModelError(f"Each argument of a model is given once, but '{text}' has '{twice}' twice. Leave one out.")
    return text.removesuffix(behind), dict(pairs)


def declared_arguments(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that a script's ``build`` takes beside the images' shape, with their defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {
        one.name: one.default
        for one in parameters
        if one.kind is one.KEYWORD_ONLY and isinstance(one.default, bool | int | float | str)
    }


def read_arguments(function: Callable[..., Any], given: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return arguments as values of their types.

    Parameters
    ----------
    function : callable
        The script's ``build``.
    given : mapping of str to str
        As `split_arguments` returned them.
    path : Path
        Of the script, for messages.

    Returns
    -------
    dict of str to bool, int, float or str
        In the order that the function declares them.

    Raises
    ------
    ModelError
        If the function has no such argument, or the text is no value of its type.
    """
    declared = declared_arguments(function)
    for name in given:
        if name not in declared:
            hint = near_matches(name, declared) if declared else "Leave it out: this script takes none."
            raise ModelError(f"build of {path} has no argument '{name}'. {hint}")
    return {name: _value(name, given[name], type(declared[name])) for name in declared if name in given}


def _value(name: str, text: str, kind: type) -> Any:
    try:
        return TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ModelError(
            f"The model's argument '{name}' must be {WANTED[kind]}, but is '{text}'. Correct it, or leave it out for "
            "the script's own."
        ) from None


def describe(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a script's name with its arguments, as they are written on the command line.

    Parameters
    ----------
    name : str
    arguments : mapping of str to bool, int, float or str

    Returns
    -------
    str

    Examples
    --------
    >>> describe("cifar_vgg", {"depth": 16, "batch_norm": False})
    'cifar_vgg:depth=16:batch_norm=false'
    """
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in arguments.items()}
    return ":".join([name, *(f"{key}={text}" for key, text in texts.items())])
