"""Group `training`: the loss by epoch, and the layers' figures where the fit kept them.

Records after epochs stand along the loss's own dim `epoch`, NaN where there was none; records after steps along `step`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xarray as xr

from wiu_pyro.export.layer_groups import with_coords
from wiu_pyro.infer import Fit, Track
from wiu_pyro.infer.track import FIGURES

__all__ = ["training_group"]


def training_group(fit: Fit, *, point_layers: Collection[str] = ()) -> xr.Dataset:
    """Return the group `training` of one fit.

    Parameters
    ----------
    fit : Fit
        With at least one epoch.
    point_layers : collection of str
        Layers that the posterior holds at their point estimate: they have no figures, also where the training that a
        posterior shares with another was tracked for all layers.

    Returns
    -------
    Dataset, dims (chain, epoch) and, where layers were tracked, (chain, epoch | step, layer)
    """
    losses = {"loss": fit.losses} | {f"validation_{name}": values for name, values in fit.validation.items()}
    variables = {name: (("chain", "epoch"), np.asarray(values, np.float32)[None]) for name, values in losses.items()}
    variables["loss"] = (*variables["loss"], {"units": "nats", "meaning": _meaning(fit)})
    data = xr.Dataset(variables)
    if fit.track is not None and len(fit.track.step):
        data = _with_track(data, fit.track, point_layers)
    return with_coords(data)


def _meaning(fit: Fit) -> str:
    """Return what the loss is: no ELBO where a point was trained, nor where the prior weighs other than by Bayes."""
    objective = getattr(fit.guide, "objective", "-ELBO")
    if fit.settings.get("guide") in ("AutoDelta", "AutoLaplaceApproximation"):
        objective = "-log joint density"
    weight = float(getattr(fit.guide, "temperature", 1.0))
    weighted = "" if weight == 1 else f", the prior's part times {weight:g}"
    return f"{objective}, summed over the data{weighted}"


def _with_track(data: xr.Dataset, track: Track, point_layers: Collection[str]) -> xr.Dataset:
    if track.unit == "epochs":
        dim, place = "epoch", np.rint(track.epoch).astype(int) - 1  # epochs are counted from 0 in the file
        coord, own = np.arange(data.sizes["epoch"]), {}
    else:
        dim, place, coord = "step", np.arange(len(track.step)), track.step
        own = {"step_loss": track.loss, "step_epoch": track.epoch}
    own |= {"tracked_data": track.num_data}
    size, known = len(coord), ~np.isin(track.layers, list(point_layers))
    variables = {}
    for name, values in own.items():
        variables[name] = (("chain", dim), _placed(values, place, size))
    for name, values in track.figures.items():
        masked = np.where(known, values, np.nan)
        variables[name] = (("chain", dim, "layer"), _placed(masked, place, size), {"long_name": FIGURES[name]})
    variables["full_rate_epochs"] = ("chain", np.array([track.full_rate_epochs], np.float32))
    attrs = {
        "tracked": track.unit,
        "tracked_every": track.every,
        "tracked_structure": track.structure,
        "tracked_curvature": track.curvature,
        "tracked_factorised": int(track.factorised),
    }
    return data.assign(variables).assign_coords({dim: coord, "layer": list(track.layers)}).assign_attrs(attrs)


def _placed(values: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Return values (records, ...) at their places along a dim of that size, float32, with a chain before."""
    out = np.full((1, size, *values.shape[1:]), np.nan, np.float32)
    out[0, place] = values
    return out
