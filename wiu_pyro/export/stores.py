"""Where the groups of a posterior lie on a disk: one netCDF file, or a zarr folder, chosen by the ending of its name.

Groups are written one after the other, so that memory holds one of them. All of it is written aside and moved into
place at the end: a path holds a whole posterior, or what it held before. Arrays are stored uncompressed: 20 MB take
0.02 s instead of 0.9 s, and random numbers hardly shrink.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import h5netcdf
import numpy as np
import xarray as xr
from typing_extensions import override
from xarray.backends import H5NetCDFStore
from xarray.backends.common import ArrayWriter

from wiu_pyro.errors import OutputError, SchemaError, WiuError
from wiu_pyro.export.in_place import ASIDE, move_into_place, remove, remove_leftovers
from wiu_pyro.export.netcdf_reader import read_netcdf

__all__ = ["ZARR", "Store", "is_zarr", "read_groups", "writing"]

ZARR = ".zarr"
CHUNK_BYTES = 32 * 2**20  # of a chunk of a larger array; smaller ones are one chunk
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, h5netcdf.CompatibilityError)


def is_zarr(path: Path) -> bool:
    """Return whether the name of a posterior asks for a zarr folder."""
    return path.suffix == ZARR


class Store(ABC):
    """An open place for groups, written one after the other."""

    @abstractmethod
    def write(self, name: str, data: xr.Dataset) -> None:
        """Write one group."""

    @abstractmethod
    def close(self) -> None:
        """End writing; all of it lies on the disk afterwards."""


class _NetCDF(Store):
    def __init__(self, path: Path) -> None:
        self.path, self.file = path, h5netcdf.File(path, "w")

    @override
    def write(self, name: str, data: xr.Dataset) -> None:
        writer = ArrayWriter()
        data.dump_to_store(H5NetCDFStore(self.file, group=name, mode="a"), writer=writer)
        writer.sync()

    @override
    def close(self) -> None:
        self.file.close()
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())


class _Zarr(Store):
    def __init__(self, path: Path) -> None:
        self.path, self.zarr = path, _zarr(f"to write '{path.name}'", OutputError)
        path.mkdir()
        self.zarr.open_group(path, mode="w", zarr_format=2)

    @override
    def write(self, name: str, data: xr.Dataset) -> None:
        encoding = {
            str(key): {"chunks": _chunks(array), "compressors": None}
            for key, array in data.variables.items()
            if array.dtype.kind not in "OSU"
        }
        data.to_zarr(self.path, group=name, mode="a", consolidated=False, zarr_format=2, encoding=encoding)

    @override
    def close(self) -> None:
        self.zarr.consolidate_metadata(self.path)
        os.sync()


def _chunks(array: xr.Variable) -> tuple[int, ...]:
    """Return the chunks of an array: whole along chain and draw, cut along the first of the other dims that is long."""
    shape, size = list(array.shape), array.dtype.itemsize
    for axis, dim in enumerate(array.dims):
        beyond = int(np.prod(shape)) * size / CHUNK_BYTES
        if beyond > 1 and dim != "draw":
            shape[axis] = max(1, int(shape[axis] / beyond))
    return tuple(max(1, length) for length in shape)


def _zarr(purpose: str, error: type[WiuError]) -> ModuleType:
    try:
        import zarr
    except ImportError as cause:
        raise error(
            f"The package zarr is needed {purpose}, but it is not installed. Install it (pip install "
            "'wiu_pyro[zarr]'), or use a name that ends in .nc."
        ) from cause
    return zarr


@contextmanager
def writing(target: Path, *, check: Callable[[Path], None] | None = None) -> Iterator[Store]:
    """Give a store to write groups to, and move it to `target` once all are written.

    Parameters
    ----------
    target : Path
        Ends in ``.zarr`` for a zarr folder; anything else is a netCDF file. Its folder must exist.
    check : callable, optional
        Looks at what was written before it is moved into place, and raises where it is not right.

    Yields
    ------
    Store

    Raises
    ------
    OutputError
        If the folder is missing or cannot be written to, `target` is of the other kind, the disk is full, or zarr is
        asked for and not installed.
    """
    _check_target(target)
    remove_leftovers(target)
    aside = target.with_name(f".{target.name}.{os.getpid()}{ASIDE}")
    store: Store | None = None
    try:
        store = _Zarr(aside) if is_zarr(target) else _NetCDF(aside)
        yield _Guarded(store, target)
        store.close()
        store = None
        if check is not None:
            check(aside)
        move_into_place(aside, target)
    except OSError as error:
        raise OutputError(
            f"A folder that can be written to, with room for the file, is needed for '{target}', but writing failed: "
            f"{error.strerror or error}. Choose another folder, or free some space. Nothing was changed."
        ) from error
    finally:
        if isinstance(store, _NetCDF):
            with suppress(Exception):
                store.file.close()
        remove(aside)


class _Guarded(Store):
    """A store that looks for room before each group: HDF5 crashes the whole process when a disk fills up under it."""

    def __init__(self, store: Store, target: Path) -> None:
        self.store, self.target = store, target

    @override
    def write(self, name: str, data: xr.Dataset) -> None:
        refuse_full_disk(data.nbytes, self.target)
        self.store.write(name, data)

    @override
    def close(self) -> None:
        self.store.close()


def refuse_full_disk(needed: int, target: Path) -> None:
    """Raise OutputError where the disk of `target` has no room for so many bytes."""
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OutputError(
            f"Room for {needed / 1e6:,.1f} MB is needed to write '{target}', but its disk has {free / 1e6:,.1f} MB "
            "left. Free some space, or choose another folder. Nothing was changed."
        )


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(
            f"A folder that exists is needed to write '{target}', but '{target.parent}' is none. Create it first."
        )
    if target.is_dir() and not (is_zarr(target) and _holds_zarr(target)):
        raise OutputError(
            f"A file name is needed, but '{target}' is a folder. Add a name, e.g. '{target / 'posterior.nc'}'."
        )
    if target.is_file() and is_zarr(target):
        raise OutputError(f"A zarr folder is to be written, but '{target}' is a file. Remove it, or use another name.")


def _holds_zarr(path: Path) -> bool:
    return not any(path.iterdir()) or any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def read_groups(source: Path, *, lazy: bool) -> dict[str, xr.Dataset]:
    """Return the groups at a path, by name.

    Parameters
    ----------
    source : Path
        A netCDF file, or a zarr folder.
    lazy : bool
        Leave the arrays on the disk: each is read when its values are asked for, and not kept.

    Returns
    -------
    dict of str to Dataset

    Raises
    ------
    SchemaError
        If there is nothing, or it cannot be read.
    """
    folder = source.is_dir() and (is_zarr(source) or source.suffix == ASIDE)
    if not source.is_file() and not folder:
        kind = "is a folder" if source.is_dir() else "is not there"
        raise SchemaError(
            f"A posterior (a .nc file, or a .zarr folder) is needed, but '{source}' {kind}. Check the path, or write "
            "one with wiu_pyro.save."
        )
    try:
        found = _read_zarr(source) if folder else read_netcdf(source)
        if lazy:
            return found
        content = {name: data.load() for name, data in found.items()}
    except UNREADABLE as error:
        size = "" if folder else f" ({source.stat().st_size:,} bytes)"
        raise SchemaError(
            f"A {'zarr folder' if folder else 'netCDF file'} of wiu_pyro is needed, but '{source}'{size} cannot be "
            f"read as one: {error}. It is truncated or of another kind; write it again with wiu_pyro.save."
        ) from error
    return content


def _read_zarr(source: Path) -> dict[str, xr.Dataset]:
    _zarr(f"to read '{source.name}'", SchemaError)
    at_once = (source / ".zmetadata").is_file()  # the names of all arrays in one file
    found = xr.open_groups(source, engine="zarr", chunks=None, cache=False, consolidated=at_once)
    return {path.strip("/"): data for path, data in found.items() if path != "/"}
