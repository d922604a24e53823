"""The container of the installed ArviZ line: `arviz.InferenceData` (0.2x) or `xarray.DataTree` (1.x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import arviz as az
import xarray as xr

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
    """
    container = getattr(az, "InferenceData", xr.DataTree)  # ArviZ 1.x keeps the name, for a DataTree
    if not issubclass(container, xr.DataTree):
        return container(**groups)
    return xr.DataTree(children={name: xr.DataTree(data) for name, data in groups.items()})
