"""What a model script says beside its ``build``: data, epochs, learning rate, changes of the training images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from wiu_pyro.errors import ModelError

__all__ = ["read_constants"]


def read_constants(module: ModuleType, path: Path) -> dict[str, Any]:
    """Return the constants of a script, as the fields of `ModelScript` that they are.

    Parameters
    ----------
    module : ModuleType
        The script, run.
    path : Path
        For messages.

    Returns
    -------
    dict

    Raises
    ------
    ModelError
        If one of them is of another kind than it must be.
    """
    return {
        "data": _data(module, path),
        "epochs": _epochs(module, path, "EPOCHS"),
        "vi_epochs": _epochs(module, path, "VI_EPOCHS"),
        "learning_rate": _learning_rate(module, path),
        "augment": _augment(module, path),
        "normalise": _normalise(module, path),
    }


def _data(module: ModuleType, path: Path) -> str | None:
    data = getattr(module, "DATA", None)
    if data is None or isinstance(data, str):
        return data
    raise ModelError(
        f'DATA in {path} must be the name or path of image data, but it is {data!r}. Write DATA = "mnist".'
    )


def _epochs(module: ModuleType, path: Path, name: str) -> int | None:
    epochs = getattr(module, name, None)
    if epochs is None or (isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0):
        return epochs
    raise ModelError(f"{name} in {path} must be a positive whole number, but it is {epochs!r}. Write {name} = 20.")


def _augment(module: ModuleType, path: Path) -> Callable[[Any], Any] | None:
    augment = getattr(module, "AUGMENT", None)
    if augment is None or callable(augment):
        return augment
    raise ModelError(
        f"AUGMENT in {path} must be a callable that changes a batch of images, but it is {augment!r}. Write "
        "AUGMENT = wiu_pyro.datasets.FlipAndCrop(padding=4)."
    )


def _learning_rate(module: ModuleType, path: Path) -> float | None:
    rate = getattr(module, "LEARNING_RATE", None)
    if rate is None or (isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < math.inf):
        return rate
    raise ModelError(
        f"LEARNING_RATE in {path} must be a positive number, but it is {rate!r}. Write LEARNING_RATE = 1e-3."
    )


def _normalise(module: ModuleType, path: Path) -> bool:
    normalise = getattr(module, "NORMALISE", False)
    if isinstance(normalise, bool):
        return normalise
    raise ModelError(
        f"NORMALISE in {path} must be True or False, but it is {normalise!r}. True takes the mean and sd of the "
        "training images' channels."
    )
