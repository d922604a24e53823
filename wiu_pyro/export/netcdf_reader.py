"""Read the groups of a netCDF file: their arrays from h5py, five times as fast as over the general readers.

A posterior of many layers holds hundreds of small variables: of a file of hundreds of megabytes their names took longer
to read than their values. A group with anything beyond plain numbers and texts (packed values, times, filled gaps) is
read by xarray.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray, H5NetCDFStore
from xarray.core import indexing

__all__ = ["read_netcdf"]

# what netCDF itself keeps in the attributes of an HDF5 variable
INTERNAL = frozenset(
    {
        "CLASS",
        "NAME",
        "REFERENCE_LIST",
        "DIMENSION_LIST",
        "DIMENSION_LABELS",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "_nc3_strict",
        "_NCProperties",
        "_FillValue",
    }
)
DECODED = frozenset({"scale_factor", "add_offset", "dtype", "missing_value", "calendar", "coordinates", "_Unsigned"})
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def read_netcdf(source: Path) -> dict[str, xr.Dataset]:
    """Return the groups of a file, arrays left on the disk: each is read when its values are asked for, and not kept.

    Parameters
    ----------
    source : Path

    Returns
    -------
    dict of str to Dataset
        The file stays open as long as one of them is there.

    Raises
    ------
    OSError, ValueError, RuntimeError, KeyError
        If it is no netCDF file, or broken.
    """
    file = h5py.File(source, "r")
    plain = {name: _plain_group(group) for name, group in file.items() if isinstance(group, h5py.Group)}
    if all(data is not None for data in plain.values()):
        return plain
    general = h5netcdf.File(source, "r")
    return {
        name: xr.open_dataset(H5NetCDFStore(general, group=name, mode="r"), cache=False) if data is None else data
        for name, data in plain.items()
    }


class _OnDisk(BackendArray):
    """An array of the file."""

    def __init__(self, data: h5py.Dataset) -> None:
        self.data, self.shape, self.dtype = data, data.shape, data.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        return np.asarray(self.data[key])


def _plain_group(group: h5py.Group) -> xr.Dataset | None:
    """Return a group, or None where it holds something that has to be decoded."""
    members = {name: group[name] for name in group}
    if not all(isinstance(member, h5py.Dataset) for member in members.values()):
        return None
    names = {_address(data.id): name for name, data in members.items()}
    variables, coords = {}, {}
    for name, data in members.items():
        kept = dict(_attributes(data))
        if data.attrs.get("NAME", b"").startswith(NO_VARIABLE):
            continue
        dims = _dims(name, data, names)
        if dims is None or not _is_plain(data, kept):
            return None
        place = coords if dims == (name,) else variables
        place[name] = xr.Variable(dims, _values(data), kept)
    return xr.Dataset(variables, coords=coords, attrs=dict(_attributes(group)))


def _address(identifier: Any) -> int:
    return h5py.h5o.get_info(identifier).addr


def _dims(name: str, data: h5py.Dataset, names: dict[int, str]) -> tuple[str, ...] | None:
    if data.ndim == 0:
        return ()
    if "DIMENSION_LIST" in data.attrs:
        references = [found[0] for found in data.attrs["DIMENSION_LIST"]]
        places = [_address(h5py.h5r.dereference(reference, data.id)) for reference in references]
        return tuple(names[place] for place in places) if set(places) <= set(names) else None
    return (name,) if data.ndim == 1 and data.attrs.get("CLASS", b"") == b"DIMENSION_SCALE" else None


def _values(data: h5py.Dataset) -> Any:
    if data.dtype.kind == "O":  # texts
        return np.asarray(data.asstr()[()], dtype=str)
    return indexing.LazilyIndexedArray(_OnDisk(data))


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    for key in holder.attrs:
        if key not in INTERNAL:
            value = holder.attrs[key]
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, np.ndarray):
                value = [item.decode() if isinstance(item, bytes) else item for item in value.ravel().tolist()]
                value = value[0] if len(value) == 1 else value
            yield key, value


def _is_plain(data: h5py.Dataset, attrs: dict[str, Any]) -> bool:
    if DECODED & set(attrs) or " since " in str(attrs.get("units", "")):
        return False
    if data.dtype.kind not in "fiu" and h5py.check_string_dtype(data.dtype) is None:
        return False
    filled = data.attrs.get("_FillValue")
    return filled is None or (data.dtype.kind == "f" and bool(np.isnan(filled).all()))
