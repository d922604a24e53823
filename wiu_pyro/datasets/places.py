"""Where data sets lie, which are there, and how one that is not gets there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wiu_pyro.datasets.named import NAMED, has_files
from wiu_pyro.errors import DataError, near_matches

__all__ = ["Listed", "available", "data_root", "fetch", "known_name"]


@dataclass(frozen=True)
class Listed:
    """One line of `wiu data list`.

    Attributes
    ----------
    name : str
        The name `wiu_pyro.datasets.load` takes.
    about : str
        What it holds.
    splits : tuple of str
        The splits that are there.
    where : str
        The folder they are in, ``"scikit-learn"``, or empty where none is there.
    can_fetch : bool
        Whether `fetch` can get it.
    """

    name: str
    about: str
    splits: tuple[str, ...]
    where: str
    can_fetch: bool


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that data sets lie in.

    Parameters
    ----------
    root : path, optional
        Taken where it is given; else the environment variable ``WIU_DATA``; else ``wiu_pyro`` in the user's cache.

    Returns
    -------
    Path
        It need not exist yet.

    Examples
    --------
    >>> data_root("images").name
    'images'
    """
    chosen = root if root is not None else os.environ.get("WIU_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wiu_pyro"


def known_name(name: str) -> str:
    """Return `name` as it stands in the list of data sets (``"MNIST"`` is ``"mnist"``), or raise with near matches.

    Parameters
    ----------
    name : str
        What the user wrote.

    Returns
    -------
    str
        A key of `wiu_pyro.datasets.named.NAMED`.

    Raises
    ------
    DataError
        If there is no such data set.
    """
    lowered = name.lower().replace("_", "-")
    if lowered in NAMED:
        return lowered
    raise DataError(
        f"The name of a data set, an image folder or a .tar of one is needed; '{name}' is none of them. "
        + near_matches(lowered, NAMED)
    )


def available(root: str | os.PathLike[str] | None = None) -> tuple[Listed, ...]:
    """Return every data set known by name, and where it was found.

    Parameters
    ----------
    root : path, optional
        Folder to look in; see `data_root`.

    Returns
    -------
    tuple of Listed
        In the order of a list meant for reading.

    Examples
    --------
    >>> [(data.name, data.where) for data in available()][0]
    ('digits', 'scikit-learn')
    """
    folder = data_root(root)
    found = []
    for name, known in NAMED.items():
        splits = tuple(split for split in known.files if has_files(name, split, folder))
        where = "scikit-learn" if name == "digits" else str(folder / known.folder) if splits else ""
        found.append(Listed(name, known.about, splits, where, bool(known.torchvision_class)))
    return tuple(found)


def fetch(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """Download a data set, unless it is there already.

    It is downloaded beside its place and moved there when it is whole.

    Parameters
    ----------
    name : str
        Name of the data set.
    root : path, optional
        Folder to put it in; see `data_root`.

    Returns
    -------
    str
        Where it lies now, as `Listed.where` says it.

    Raises
    ------
    DataError
        If the name is unknown, the data set cannot be downloaded, or the folder cannot be written to.
    """
    name = known_name(name)
    known, folder = NAMED[name], data_root(root)
    if name == "digits":
        return "scikit-learn"
    target = folder / known.folder
    if all(has_files(name, split, folder) for split in known.files):
        return str(target)
    if not known.torchvision_class:
        files = ", ".join(dict.fromkeys(file for names in known.files.values() for file in names))
        raise DataError(f"'{name}' cannot be downloaded. Put its files ({files}) into {target}.")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wiu-fetch-", dir=folder) as aside:
            _download(known.torchvision_class, aside)
            shutil.copytree(Path(aside) / known.folder, target, dirs_exist_ok=True)
    except (OSError, RuntimeError) as error:
        for path in missing:  # innermost first; a folder someone else has put something into stays
            with contextlib.suppress(OSError):
                path.rmdir()
        raise DataError(
            f"'{name}' is needed in {target}, is not there, and cannot be downloaded: {_first_line(error)}. "
            f"Connect to a network and run: wiu data get {name} --data-root {folder}; or name a folder that holds it "
            "with --data-root or the environment variable WIU_DATA; or use --data digits, which needs no download."
        ) from error
    return str(target)


def _download(torchvision_class: str, folder: str) -> None:
    """Let torchvision download into `folder`, each file checked against its md5."""
    from torchvision import datasets

    getattr(datasets, torchvision_class)(folder, download=True)


def _first_line(error: BaseException) -> str:
    """Return the first line of an error that says something, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]).rstrip(".") or type(error).__name__
