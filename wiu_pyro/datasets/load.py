"""One entry for all image data: by name, from a folder, from a tar."""

from __future__ import annotations

import os
from pathlib import Path

from wiu_pyro.datasets.folder import is_tar, load_folder
from wiu_pyro.datasets.image_data import ImageData, Split
from wiu_pyro.datasets.named import NAMED, has_files, read
from wiu_pyro.datasets.places import data_root, fetch, known_name
from wiu_pyro.errors import DataError

__all__ = ["load"]


def load(
    name_or_path: str | os.PathLike[str],
    *,
    split: Split = "train",
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> ImageData:
    """Load one split of an image data set into memory.

    Parameters
    ----------
    name_or_path : str or path
        A name (``"digits"``, ``"mnist"``, ``"fashion-mnist"``, ``"kmnist"``, ``"cifar10"``, ``"cifar10-jpg"``,
        ``"notmnist"``), a folder with ``train/<class>/*.png`` and ``test/<class>/*.png`` (JPEG and other image files
        too), or a ``.tar`` of such a folder, which is read without being unpacked.
    split : {"train", "test"}
        The part to load.
    root : path, optional
        Folder that named data sets lie in; see `wiu_pyro.datasets.data_root`.
    download : bool
        Whether a named data set that is not there is downloaded.

    Returns
    -------
    ImageData
        Inputs between 0 and 1, as the attribute `scaling` says: pixel / 255, for digits pixel / 16.

    Raises
    ------
    DataError
        If the name is unknown, the data set is not there and cannot be downloaded, a file cannot be read, a folder or a
        class is empty, images differ in size or channels, or train and test have other classes.

    Examples
    --------
    >>> load("digits").image_size
    (8, 8)
    """
    if split not in ("train", "test"):
        raise DataError(f"A split 'train' or 'test' is needed, but it is {split!r}. Give one of the two.")
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    if text.lower().replace("_", "-") not in NAMED and (path.exists() or _looks_like_path(text)):
        return load_folder(path, split)
    name = known_name(text)
    folder = data_root(root)
    if split not in NAMED[name].files:
        raise DataError(
            f"'{name}' has a test split only, but the {split} split is asked for. Load it with split=\"test\"."
        )
    if not has_files(name, split, folder):
        if not download:
            raise DataError(
                f"'{name}' is needed in {folder / NAMED[name].folder} and is not there. Run: wiu data get {name}; "
                "or name a folder that holds it with --data-root or the environment variable WIU_DATA."
            )
        fetch(name, root)
    return read(name, split, folder)


def _looks_like_path(text: str) -> bool:
    """Return whether a text can only be meant as a path."""
    return os.sep in text or text.startswith((".", "~")) or is_tar(text)
