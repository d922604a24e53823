"""The layers' figures through the training as the file holds them, read into one form: epochs done, counted from 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.errors import SchemaError

__all__ = ["CARRIED", "described", "training_records"]

CARRIED = ("tracked", "tracked_every", "tracked_structure", "tracked_curvature", "tracked_factorised")


def training_records(idata: Any) -> xr.Dataset:
    """Return what the fit kept of its layers, along the epochs that were done at each record.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    Dataset, dims (chain, epoch, layer) and (chain, epoch)
        Float64. Coordinate ``epoch``: epochs done, 1 after the first; fractions where records were made after steps.
        Records that no chain has are left out.

    Raises
    ------
    SchemaError
        If the fit kept none.
    """
    held = schema.groups(idata)
    data = schema.dataset(idata, "training") if "training" in held else xr.Dataset()
    names = [name for name, array in data.data_vars.items() if "layer" in array.dims]
    dim = "step" if names and "step" in data[names[0]].dims else "epoch"
    if not names or data.sizes.get(dim, 0) == 0:
        raise SchemaError(
            "Figures of the layers through the training (group 'training' over 'layer') are needed, but the fit kept "
            f'{"its loss alone" if "loss" in data else "nothing"}. Fit again with wiu_pyro.fit(..., track="epoch").'
        )
    own = [name for name, array in data.data_vars.items() if dim in array.dims]
    found = data[own].astype(np.float64)
    kept = np.isfinite(np.stack([_any_of(found[name]) for name in names])).any(axis=0)
    found = found.isel({dim: kept})
    if dim == "step":
        epochs = found["step_epoch"].max("chain").values
        found = found.drop_vars(["step_epoch", "step", "loss"], errors="ignore").rename(step_loss="loss")
        found = found.rename(step="epoch").assign_coords(epoch=epochs)
    else:
        found = found.assign_coords(epoch=found["epoch"].values + 1)
    if "full_rate_epochs" in data:
        found["full_rate_epochs"] = data["full_rate_epochs"].astype(np.float64)
    found.attrs = {name: data.attrs[name] for name in CARRIED if name in data.attrs}
    layers = [name for name in schema.layer_names(idata) if name in found["layer"].values]
    return found.sel(layer=layers).transpose("chain", "epoch", "layer")


def _any_of(values: xr.DataArray) -> np.ndarray:
    """Return a finite value of each record, where any chain and layer has one."""
    stacked = values.transpose(*[dim for dim in values.dims if dim in ("chain", "layer")], ...).values
    flat = stacked.reshape(-1, stacked.shape[-1])
    return np.where(np.isfinite(flat).any(axis=0), 0.0, np.nan)


def described(attrs: dict[str, Any]) -> str:
    """Return what the records rest on, as a sentence; empty where they are the posterior's own moments.

    Parameters
    ----------
    attrs : dict
        Of `training_records`, or of a table made from it.

    Returns
    -------
    str
    """
    curvature = str(attrs.get("tracked_curvature", "none"))
    if curvature == "none":
        return ""
    names = {"ggn": "GGN", "fisher_mc": "sampled Fisher", "fisher_empirical": "empirical Fisher"}
    data = float(attrs.get("tracked_data", np.nan))
    number = f" over {data:,.0f} training data" if np.isfinite(data) else ""
    return (
        f"Through the training the layers are seen by the {attrs.get('tracked_structure', 'diagonal')} of the "
        f"{names.get(curvature, curvature)}{number} around the point estimate; its sds are about the conditional ones."
    )
