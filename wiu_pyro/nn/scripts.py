"""Model scripts: a Python file with a function ``build`` that returns a Pyro model, shipped or the user's own."""

from __future__ import annotations

import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wiu_pyro.errors import ModelError, OutputError, WiuError, near_matches
from wiu_pyro.nn.script_arguments import describe, read_arguments, split_arguments
from wiu_pyro.nn.script_constants import read_constants

__all__ = ["ModelScript", "copy_model", "load_model_script", "shipped_models"]

PACKAGE = Path(__file__).parents[1]
SIGNATURE = "build(num_classes, in_channels, image_size)"


@dataclass(frozen=True)
class ModelScript:
    """A model script that has been read.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Its name without ``.py``.
    about : str
        The first line of its docstring.
    data : str or None
        Its ``DATA``: name or path of the data it is meant for.
    epochs : int or None
        Its ``EPOCHS``: passes over the training data when none are asked for.
    vi_epochs : int or None
        Its ``VI_EPOCHS``: the same for posteriors trained by variational inference, which takes longer to settle.
    learning_rate : float or None
        Its ``LEARNING_RATE``, of Adam.
    function : callable
        Its ``build``, unchecked; `build` is the one to call.
    augment : callable or None
        Its ``AUGMENT``: changes a batch of training images at random, as `wiu_pyro.fit` takes it.
    normalise : bool
        Its ``NORMALISE``: whether inputs are normalised by mean and sd of the training images' channels.
    arguments : mapping of str to bool, int, float or str
        Those that ``build`` is called with beside the images' shape.
    """

    path: Path
    name: str
    about: str
    data: str | None
    epochs: int | None
    vi_epochs: int | None
    learning_rate: float | None
    function: Callable[..., Any]
    augment: Callable[[Any], Any] | None = None
    normalise: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name with its arguments, for example ``"cifar_vgg:depth=16"``."""
        return describe(self.name, self.arguments)

    def build(self, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> Any:
        """Return the script's model for images of one kind.

        Parameters
        ----------
        num_classes : int
            Number of classes.
        in_channels : int
            1 for grey images, 3 for colour.
        image_size : tuple of int
            Height and width in pixels.

        Returns
        -------
        PyroModule
            The model; its first weights come from torch's random state.

        Raises
        ------
        ModelError
            If the script's ``build`` raises, or returns something that is no Pyro model.
        """
        from pyro.nn import PyroModule
        from torch import nn

        called = f"build(num_classes={num_classes}, in_channels={in_channels}, image_size={tuple(image_size)})"
        with _reported(self.path, called):
            model = self.function(num_classes, in_channels, tuple(image_size), **self.arguments)
        if isinstance(model, PyroModule):
            return model
        way_out = (
            "Return wiu_pyro.nn.BayesianNetwork(net) instead of net."
            if isinstance(model, nn.Module)
            else "End it in: return wiu_pyro.nn.BayesianNetwork(net)"
        )
        raise ModelError(
            f"A Pyro model is needed from {called} in {self.path}, but it returned a {type(model).__name__}. {way_out}"
        )


def shipped_models() -> dict[str, Path]:
    """Return the model scripts that come with the toolkit, by name.

    Returns
    -------
    dict of str to Path
        From the installed package, or from the checkout's ``models/``.

    Examples
    --------
    >>> "digits_mlp" in shipped_models()
    True
    """
    installed = PACKAGE / "_models"
    folder = installed if installed.is_dir() else PACKAGE.parent / "models"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def load_model_script(path_or_name: str | os.PathLike[str]) -> ModelScript:
    """Read a model script.

    Parameters
    ----------
    path_or_name : str or path
        Name of a shipped script, or path of a file, with arguments behind it where its ``build`` takes some:
        ``"cifar_vgg:depth=16"``. The file may import others that lie beside it.

    Returns
    -------
    ModelScript
        With ``build`` ready to call.

    Raises
    ------
    ModelError
        If there is no such script, it cannot be read or run, has no ``build``, or does not take the arguments.

    Examples
    --------
    >>> load_model_script("digits_mlp").data
    'digits'
    """
    name, given = split_arguments(os.fspath(path_or_name))
    path = _find(name)
    module = _run(path)
    function = getattr(module, "build", None)
    if not callable(function):
        raise ModelError(
            f"A function {SIGNATURE} that returns a Pyro model is needed in {path}, but the script has none. "
            "Add it; `wiu models copy digits_mlp` gives an example."
        )
    about = (module.__doc__ or "").strip().partition("\n")[0]
    return ModelScript(
        path=path,
        name=path.stem,
        about=about,
        **read_constants(module, path),
        function=function,
        arguments=read_arguments(function, given, path),
    )


def copy_model(name: str, target_folder: str | os.PathLike[str] = ".") -> Path:
    """Copy a shipped model script, to change the copy.

    Parameters
    ----------
    name : str
        Name of a shipped script.
    target_folder : path
        Where the copy goes; made where it is not there.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    ModelError
        If no script of that name is shipped.
    OutputError
        If there is a file of that name already, or the folder cannot be written to.
    """
    shipped = shipped_models()
    if name not in shipped:
        raise ModelError(f"The name of a shipped model is needed; '{name}' is none. {near_matches(name, shipped)}")
    target = Path(target_folder) / shipped[name].name
    source = shipped[name].read_bytes()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(source)
    except FileExistsError as error:
        raise OutputError(
            f"A new file is needed for the copy of '{name}', but {target} is there already. "
            "Remove or rename it, or choose another folder."
        ) from error
    except OSError as error:
        raise OutputError(
            f"The copy of '{name}' cannot be written to {target}: {error}. Choose another folder."
        ) from error
    return target


def _find(text: str) -> Path:
    """Return the file a name or path means."""
    shipped = shipped_models()
    if text in shipped:
        return shipped[text]
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.exists():
        raise ModelError(f"A model script (a .py file) is needed, but {path} is a folder. Name the file in it.")
    if path.suffix == ".py" or os.sep in text:
        raise ModelError(
            f"A model script is needed, but there is no file {path}. Correct the path; "
            "`wiu models list` shows the shipped ones."
        )
    raise ModelError(
        f"The name of a shipped model or the path of a model script is needed; '{text}' is neither. "
        + near_matches(text, shipped)
    )


def _run(path: Path) -> types.ModuleType:
    """Run a script as a module of its own."""
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""  # none where the file is no text
        raise ModelError(
            f"A Python script is needed, but {path} has a syntax error{where}: {error.msg}. Correct it."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"A Python script is needed, but {path} cannot be read: {error}. Check the file.") from error
    module = types.ModuleType(f"wiu_model_script_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # what a class defined in the script is looked up in
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        with _reported(path, "the script"):
            exec(code, module.__dict__)
    finally:
        sys.path.remove(beside)
    return module


@contextmanager
def _reported(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a script raises into a ModelError that names the script's line; the toolkit's own errors pass."""
    try:
        yield
    except WiuError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {lines[-1]}" if lines else ""
        message = f"{type(error).__name__}: {error}".rstrip(". ")
        raise ModelError(
            f"A model script that runs is needed, but {what} of {path} raised{where} {message}. Correct the script."
        ) from error
