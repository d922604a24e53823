"""Image folders: ``train/<class>/*.png`` and ``test/<class>/*.png``, on disk or inside a tar.

A tar is read where it lies: nothing is extracted, links inside it are not followed, so no path in it leads anywhere.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO

import torch

from wiu_pyro.datasets.decode import decode_all
from wiu_pyro.datasets.image_data import ImageData, from_bytes
from wiu_pyro.errors import DataError

__all__ = ["Entry", "is_tar", "list_images", "load_folder"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SPLITS = ("train", "test")
LAYOUT = "train/<class>/*.png and test/<class>/*.png"


@dataclass(frozen=True)
class Entry:
    """One image file: its split, its class, its name for messages, and where its bytes are."""

    split: str
    class_name: str
    name: str
    source: Path | tarfile.TarInfo


@dataclass(frozen=True)
class _Tree:
    """What a folder or tar holds: the classes of each split (also those without images) and the images."""

    classes: dict[str, set[str]]
    entries: list[Entry]


def is_tar(text: str) -> bool:
    """Return whether a path ends like the name of a tar."""
    return text.lower().endswith(TAR_SUFFIXES)


def load_folder(path: Path, split: str) -> ImageData:
    """Load one split of an image folder or of a tar of one.

    Parameters
    ----------
    path : Path
        The folder that holds ``train`` and ``test``, or the tar.
    split : str
        ``"train"`` or ``"test"``.

    Returns
    -------
    ImageData
        Classes in alphabetical order; images in an order mixed by their classes' and files' names, always the same, so
        that the first of them are of all classes, as in data sets that are published as one file.

    Raises
    ------
    DataError
        If the path is not there, has another layout, or an image cannot be used.
    """
    with _images(path, split) as (class_names, entries, archive):
        streams = _streams_of_folder(entries) if archive is None else _streams_of_tar(archive, entries)
        pixels = decode_all(streams, [entry.name for entry in entries], path)
    index = {name: place for place, name in enumerate(class_names)}
    labels = torch.tensor([index[entry.class_name] for entry in entries])
    name = path.resolve().name
    return from_bytes(torch.from_numpy(pixels), labels, class_names, name=name, split=split)


def list_images(path: Path, split: str) -> tuple[tuple[str, ...], list[Entry]]:
    """Return the classes and the files of one split, without reading an image.

    Parameters
    ----------
    path : Path
        As `load_folder` takes it.
    split : str

    Returns
    -------
    class_names : tuple of str
    entries : list of Entry
        In the order of `load_folder`.

    Raises
    ------
    DataError
        If the path is not there or has another layout.
    """
    with _images(path, split) as (class_names, entries, _):
        return class_names, entries


@contextmanager
def _images(path: Path, split: str) -> Iterator[tuple[tuple[str, ...], list[Entry], tarfile.TarFile | None]]:
    """Give classes, files and the open tar, where it is one."""
    with ExitStack() as stack:
        archive = None
        if path.is_dir():
            tree = _tree_of_folder(path)
        elif path.is_file():
            archive = stack.enter_context(_opened(path))
            tree = _tree_of_tar(archive, path)
        else:
            raise DataError(
                f"An image folder or a .tar of one is needed, but there is nothing at {path}. Correct the path; "
                f"the folder holds {LAYOUT}."
            )
        class_names = _checked_classes(tree, path)
        chosen = (entry for entry in tree.entries if entry.split == split)
        yield class_names, sorted(chosen, key=_mixed), archive


def _mixed(entry: Entry) -> tuple[bytes, str]:
    """Return the place of an image in an order that has nothing to do with its class: first by digest, then by name."""
    name = f"{entry.class_name}/{PurePosixPath(entry.name).name}"
    return sha256(name.encode()).digest(), name


def _tree_of_folder(path: Path) -> _Tree:
    classes: dict[str, set[str]] = {split: set() for split in SPLITS}
    entries = []
    for split in SPLITS:
        if not (path / split).is_dir():
            continue
        for folder in (path / split).iterdir():
            if not folder.is_dir() or _hidden(folder.name):
                continue
            classes[split].add(folder.name)
            entries += [
                Entry(split, folder.name, f"{split}/{folder.name}/{file.name}", file)
                for file in folder.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not _hidden(file.name) and file.is_file()
            ]
    return _Tree(classes, entries)


def _tree_of_tar(archive: tarfile.TarFile, path: Path) -> _Tree:
    classes: dict[str, set[str]] = {split: set() for split in SPLITS}
    entries = []
    tops: dict[tuple[str, ...], str] = {}
    try:
        for member in archive:
            parts = tuple(part for part in PurePosixPath(member.name).parts if part != ".")
            depth = next((place for place, part in enumerate(parts) if part in SPLITS), None)
            if depth is None or any(_hidden(part) for part in parts):
                continue
            inner = parts[depth:]  # (split, class, file)
            if member.isdir() and len(inner) == 2:
                classes[inner[0]].add(inner[1])
            elif member.isfile() and len(inner) == 3 and PurePosixPath(inner[2]).suffix.lower() in IMAGE_SUFFIXES:
                tops.setdefault(parts[:depth], member.name)
                classes[inner[0]].add(inner[1])
                entries.append(Entry(inner[0], inner[1], member.name, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _broken_tar(path, error) from error
    if len(tops) > 1:
        first, second = list(tops.values())[:2]
        raise DataError(
            f"One image folder is needed in {path}, but it holds several: '{first}' and '{second}'. "
            "Make one tar of each."
        )
    return _Tree(classes, entries)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        archive = tarfile.open(path)  # noqa: SIM115 (closed below)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _broken_tar(path, error) from error
    with archive:
        yield archive


def _broken_tar(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"A tar of an image folder ({LAYOUT}) is needed, but {path} cannot be read as one: {error}. "
        "Make it again, for example: tar -cf images.tar train test"
    )


def _streams_of_folder(entries: list[Entry]) -> Iterator[tuple[int, IO[bytes]]]:
    """Yield the place of each image and its bytes."""
    files = [(place, entry.source) for place, entry in enumerate(entries) if isinstance(entry.source, Path)]
    for place, file in files:
        with file.open("rb") as stream:
            yield place, stream


def _streams_of_tar(archive: tarfile.TarFile, entries: list[Entry]) -> Iterator[tuple[int, IO[bytes]]]:
    """Yield the place of each image and its bytes, in the order of the tar, so that a packed one is read once."""
    members = [
        (place, entry.source) for place, entry in enumerate(entries) if isinstance(entry.source, tarfile.TarInfo)
    ]
    for place, member in sorted(members, key=lambda pair: pair[1].offset):
        stream = archive.extractfile(member)
        if stream is not None:
            with stream:
                yield place, stream


def _checked_classes(tree: _Tree, path: Path) -> tuple[str, ...]:
    """Return the class names, after checking that both splits have the same and each has images."""
    for split in SPLITS:
        if not tree.classes[split]:
            raise DataError(
                f"An image folder with {LAYOUT} is needed, but {path} has no class folder in '{split}'. "
                f"Put the images of each class into {split}/<class>/."
            )
    train, test = tree.classes["train"], tree.classes["test"]
    if train != test:
        raise DataError(
            f"The same classes are needed in train and test of {path}; only in train: {_listed(train - test)}; "
            f"only in test: {_listed(test - train)}. Add or remove those folders."
        )
    filled = {(entry.split, entry.class_name) for entry in tree.entries}
    for split in SPLITS:
        empty = sorted(name for name in tree.classes[split] if (split, name) not in filled)
        if empty:
            raise DataError(
                f"At least one image per class is needed; '{split}/{empty[0]}' in {path} has none "
                f"(looked for {', '.join(sorted(IMAGE_SUFFIXES))}). Add images, or remove the class everywhere."
            )
    return tuple(sorted(train))


def _listed(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:5])
    return f"{shown or 'none'}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
