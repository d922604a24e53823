"""Save a posterior and load it again, the same on both ArviZ lines: as one netCDF file, or as a zarr folder."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build
from wiu_pyro.export.stores import read_groups, refuse_full_disk, writing
from wiu_pyro.schema import dataset, groups, validate

__all__ = ["load", "load_tree", "plain_attrs", "save", "storable"]

# netCDF gives back a list of one entry as the entry alone; these stay lists whatever their length.
LIST_ATTRS = ("class_names", "seeds", "shape")


def save(idata: Any, path: str | os.PathLike[str]) -> Path:
    """Write a posterior to one netCDF file or to a zarr folder, or leave the path as it was.

    Parameters
    ----------
    idata : InferenceData or DataTree
        A posterior that follows the data contract.
    path : path-like
        The file, for example ``"kfac.nc"``; one that ends in ``.zarr`` becomes a zarr folder, in chunks of 32 MB. What
        is there is replaced. Its folder must exist.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    SchemaError
        If `idata` does not follow the data contract.
    OutputError
        If the folder is missing or cannot be written to, `path` is a folder of another kind, the disk is full, or zarr
        is asked for and not installed.

    See Also
    --------
    load : Read it again.
    """
    content = {name: storable(dataset(idata, name)) for name in groups(idata)}
    validate(build(content))
    target = Path(path)
    with writing(target) as store:
        refuse_full_disk(sum(data.nbytes for data in content.values()), target)
        for name, data in content.items():
            store.write(name, data)
    return target


def load(path: str | os.PathLike[str], *, lazy: bool = False) -> Any:
    """Read a posterior that `save` wrote.

    Parameters
    ----------
    path : path-like
        A netCDF file, or a zarr folder.
    lazy : bool
        Leave the arrays on the disk: each is read when its values are asked for, and not kept, so that memory holds one
        layer at a time. The values are not checked, and the file stays open. Otherwise it is read whole and closed.

    Returns
    -------
    InferenceData or DataTree
        The container of the installed ArviZ line, with the groups, dims, dtypes, coordinates and attributes that
        were saved.

    Raises
    ------
    SchemaError
        If there is nothing, it is truncated, of another kind, not of wiu_pyro, or a zarr folder and zarr is not
        installed.
    """
    content = _read(Path(path), lazy=lazy)
    return _checked(build(content), path, values=not lazy)


def load_tree(path: str | os.PathLike[str], *, lazy: bool = False) -> xr.DataTree:
    """Read a posterior that `save` wrote into xarray's own container, on both ArviZ lines, without importing ArviZ.

    Parameters
    ----------
    path : path-like
    lazy : bool
        As in `load`.

    Returns
    -------
    DataTree
        Everything in `wiu_pyro.diagnostics` and `wiu_pyro.plots` takes it.

    Raises
    ------
    SchemaError
        As `load`.
    """
    content = _read(Path(path), lazy=lazy)
    tree = xr.DataTree(children={name: xr.DataTree(data) for name, data in content.items()})
    return _checked(tree, path, values=not lazy)


def _read(path: Path, *, lazy: bool) -> dict[str, xr.Dataset]:
    return {name: storable(data) for name, data in read_groups(path, lazy=lazy).items()}


def _checked(idata: Any, path: str | os.PathLike[str], *, values: bool) -> Any:
    try:
        validate(idata, values=values)
    except SchemaError as error:
        raise SchemaError(f"'{path}' does not hold a posterior of wiu_pyro: {error}") from error
    return idata


def storable(data: xr.Dataset) -> xr.Dataset:
    """Return a group with attributes a file can keep, and without encodings of an earlier file."""
    result = data.drop_encoding()
    result.attrs = plain_attrs(data.attrs)
    for name in result.variables:
        result[name].attrs = plain_attrs(data[name].attrs)
    return result


def plain_attrs(attrs: Mapping[Any, Any]) -> dict[Hashable, Any]:
    """Return attributes as they come back from a file: texts, Python numbers and lists of these.

    Truth values become 0 or 1, None an empty text, NumPy numbers and arrays Python ones.

    Parameters
    ----------
    attrs : mapping

    Returns
    -------
    dict

    Examples
    --------
    >>> plain_attrs({"exact": True, "shape": (3,), "note": None, "num_data": np.int64(5)})
    {'exact': 1, 'shape': [3], 'note': '', 'num_data': 5}
    """
    return {key: _plain(value, always_list=key in LIST_ATTRS) for key, value in attrs.items()}


def _plain(value: Any, *, always_list: bool = False) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if always_list:
        return [_plain(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return ""
    return int(value) if isinstance(value, bool) else value
