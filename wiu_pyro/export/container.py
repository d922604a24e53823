"""The container of the installed ArviZ line: `arviz.InferenceData` (0.2x) or `xarray.DataTree` (1.x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from wiu_pyro.errors import SchemaError

__all__ = ["build"]


def build(groups: Mapping[str, xr.Dataset]) -> Any:
    """Put named groups into the container of the installed ArviZ line.

    `arviz.from_dict` drops groups whose name it does not know, so the container is built from datasets.

    Parameters
    ----------
    groups : mapping of str to Dataset

    Returns
    -------
    InferenceData or DataTree

    Raises
    ------
    SchemaError
        If a group's name holds a ``/``, which neither line's file keeps.
    """
    odd = [name for name in groups if "/" in name]
    if odd:
        raise SchemaError(
            f"A group name without '/' is needed, since netCDF loses such groups, but one is {odd[0]!r}. "
            "Name the layer by its dotted module path."
        )
    import arviz as az  # here, since it takes seconds, and a command line's help needs none of it

    container = vars(az).get("InferenceData")  # ArviZ 1.x answers getattr with a DataTree and a warning
    if container is not None:
        return container(**groups)
    return xr.DataTree(children={name: xr.DataTree(data) for name, data in groups.items()})
