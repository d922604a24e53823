"""Has the loss settled? The loss curve, and the tail of it that the convergence flag rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.diagnostics.moments import squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.errors import SchemaError

__all__ = ["training_loss"]

TAIL = 0.1


def training_loss(idata: Any) -> xr.Dataset:
    r"""Return the loss by epoch and by how much it changed over the last tenth of the epochs.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    Dataset, dims (epoch) or, with several chains, (chain, epoch)
        ``loss`` in nats, -ELBO summed over the data; ``validation_*`` where the fit kept them; ``tail_start``, the
        first epoch of the last tenth (no dims); ``tail_change``, (first - last loss of the tail) / \|last\|: what is
        left to fall, relative. It is NaN with fewer than two epochs. Whether the fit converged is for the fit to say:
        attributes ``converged``, ``convergence_detail``.

    Raises
    ------
    SchemaError
        If the file has no loss, or a loss of no epochs (a posterior around given weights).
    """
    held = schema.groups(idata)
    data = schema.dataset(idata, "training") if "training" in held else xr.Dataset()
    if "loss" not in data or data.sizes["epoch"] == 0:
        raise SchemaError(
            f"A loss by epoch (variable 'loss' of group 'training') is needed, but the file holds: {', '.join(held)}. "
            "A posterior around given weights (epochs=0) has none; fit with epochs > 0."
        )
    names = [name for name in data.data_vars if name == "loss" or str(name).startswith("validation_")]
    out = data[names].astype(np.float64)
    num = data.sizes["epoch"]
    start = max(num - max(2, int(np.ceil(TAIL * num))), 0)
    first, last = out["loss"].isel(epoch=start), out["loss"].isel(epoch=-1)
    change = ((first - last) / np.abs(last)).drop_vars("epoch", errors="ignore")
    out["tail_start"] = ((), int(data["epoch"].values[start]))
    out["tail_change"] = change if num > 1 else change * np.nan
    out["loss"].attrs["long_name"] = "loss: -ELBO summed over the data, nats"
    out.attrs = carried_attrs(idata)
    return squeeze_chain(out)
