"""A diagnostic's figures by layer as a pandas table, for the terminal and the report; nothing is rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from wiu_pyro.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["to_dataframe"]


def to_dataframe(table: xr.Dataset) -> pd.DataFrame:
    """Return the variables by layer as a pandas table, one row a layer.

    Parameters
    ----------
    table : Dataset
        With a dim ``layer`` and at most one other, ``chain`` or ``posterior``; for example what `layer_uncertainty` or
        `compare` returned.

    Returns
    -------
    DataFrame
        Index ``layer``, or (``chain`` | ``posterior``, ``layer``), layers in the order data flow through them. Columns
        as the variables; variables without a dim ``layer`` are left out.

    Raises
    ------
    SchemaError
        If no variable goes by layer.
    """
    names = [name for name, data in table.data_vars.items() if "layer" in data.dims]
    if not names:
        raise SchemaError(
            f"A table over the dim 'layer' is needed, but the dims are {tuple(table.sizes)}. "
            "Pass what wiu_pyro.diagnostics.layer_uncertainty returned."
        )
    by_layer = table[names]
    outer = [dim for dim in ("posterior", "chain") if dim in by_layer.dims]
    extra = set(by_layer.dims) - {"layer", *outer}
    if extra:
        by_layer = by_layer.drop_dims(list(extra))
    return by_layer.to_dataframe(dim_order=[*outer, "layer"])
