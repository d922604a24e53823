"""Has the loss settled? The loss curve, and the stretches of it that the convergence flag rests on."""

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
    """Return the loss by epoch, and its mean over the last tenth of the epochs and over the tenth before.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    Dataset, dims (epoch) or, with several chains, (chain, epoch)
        ``loss`` in nats, summed over the data: -ELBO, or what its ``long_name`` says; ``validation_*`` where the fit
        kept them. ``tail_start`` and ``before_start`` (no dims): first epochs of the last tenth and of the tenth before
        it. ``tail_mean`` and ``before_mean``: mean loss over each, NaN with fewer than ten epochs, where the fit was
        not assessed. Whether it converged is for the fit to say, not for these: attributes ``converged`` and
        ``convergence_detail``; ``objective`` says what the loss is without its scale.

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
    num, epochs = data.sizes["epoch"], data["epoch"].values
    window = int(TAIL * num)
    start, before = num - max(window, 1), max(num - 2 * max(window, 1), 0)
    for name, (begin, end) in {"tail": (start, num), "before": (before, start)}.items():
        out[f"{name}_start"] = ((), int(epochs[begin]))
        mean = out["loss"].isel(epoch=slice(begin, end)).mean("epoch")
        out[f"{name}_mean"] = mean if window else mean * np.nan
    meaning = str(data["loss"].attrs.get("meaning", "-ELBO, summed over the data"))
    out["loss"].attrs["long_name"] = f"loss: {meaning}, nats"
    out.attrs = carried_attrs(idata) | {"objective": meaning.partition(",")[0]}
    return squeeze_chain(out)
