"""The check of one layer's two groups: its draws (`layer_<name>`) and its moments (`moments_<name>`)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro.errors import SchemaError
from wiu_pyro.schema.names import LAYER_PREFIX, MOMENTS_PREFIX, moment_parameters

__all__ = ["check_draws", "check_moments"]

MOST_BYTES = 256_000_000  # looked through at once
EXPORT_AGAIN = "Export the posterior again with wiu_pyro.to_inference_data."


def check_moments(layer: str, data: xr.Dataset, num_weights: int, *, values: bool = True) -> None:
    """Check group `moments_<layer>`: names, dims, float32, finite, and as many weights as group `layers` says.

    Raises
    ------
    SchemaError
        Naming the variable that does not follow the contract.
    """
    group = MOMENTS_PREFIX + layer
    if data.attrs.get("moments") not in ("exact", "estimated") or data.attrs.get("factorised") not in (0, 1):
        raise SchemaError(
            f"Group '{group}' needs the attributes moments='exact'|'estimated' and factorised=0|1, but has "
            f"{data.attrs}. {EXPORT_AGAIN}"
        )
    parameters = moment_parameters(data)
    for prefix in parameters.values():
        _check_parameter(group, data, prefix, values=values)
    sizes = {p: data[f"{prefix}mean"].size // data.sizes["chain"] for p, prefix in parameters.items()}
    if sum(sizes.values()) != num_weights:
        raise SchemaError(
            f"Group '{group}' needs moments of all {num_weights} weights that group 'layers' counts, but has {sizes}. "
            f"{EXPORT_AGAIN}"
        )
    for dim in data.dims:
        _check_integer_index(group, data, str(dim))


def _check_parameter(group: str, data: xr.Dataset, prefix: str, *, values: bool) -> None:
    mean = data[f"{prefix}mean"]
    for part in ("sd", "prior_sd", "prior_mean"):
        if prefix + part not in data:
            held = ", ".join(map(str, data.data_vars))
            raise SchemaError(
                f"Group '{group}' needs the variable '{prefix}{part}' beside '{mean.name}'; got: {held}. {EXPORT_AGAIN}"
            )
    names = [prefix + part for part in ("mean", "sd", "sd_conditional", "prior_sd", "prior_mean")]
    for name in (name for name in names if name in data):
        array = data[name]
        prior = "prior_" in name
        if array.dims not in ({(), mean.dims[1:]} if prior else {mean.dims}) or mean.dims[0] != "chain":
            raise SchemaError(
                f"'{name}' of group '{group}' needs the dims of its weight, {mean.dims}"
                f"{' without chain, or none' if prior else ''}, but has {array.dims}. {EXPORT_AGAIN}"
            )
        _check_dtype(group, array)
        if values:
            _check_numbers(group, array, positive=name.endswith("sd") and prior, not_negative="sd" in name)


def check_draws(layer: str, data: xr.Dataset, moments: xr.Dataset, *, values: bool = True) -> None:
    """Check group `layer_<layer>`: each parameter whole with the dims of its moments, or as a subset along one dim.

    Raises
    ------
    SchemaError
        Naming the variable that does not follow the contract.
    """
    group, parameters = LAYER_PREFIX + layer, moment_parameters(moments)
    if set(map(str, data.data_vars)) != set(parameters):
        raise SchemaError(
            f"Group '{group}' needs draws of {', '.join(parameters)}, which its moments name, but has "
            f"{', '.join(map(str, data.data_vars)) or 'none'}. {EXPORT_AGAIN}"
        )
    for name, prefix in parameters.items():
        array, mean = data[name], moments[f"{prefix}mean"]
        whole = ("chain", "draw", *mean.dims[1:])
        subset = ("chain", "draw", f"{layer}_{name}")
        if array.dims == whole and array.shape[2:] == mean.shape[1:]:
            pass
        elif array.dims == subset:
            _check_subset(group, array, mean.shape[1:])
        else:
            raise SchemaError(
                f"'{name}' of group '{group}' needs the dims {whole} with shape {mean.shape[1:]}, or {subset} for a "
                f"subset, but has {array.dims} with shape {array.shape[2:]}. {EXPORT_AGAIN}"
            )
        _check_dtype(group, array)
        if values:
            _check_numbers(group, array, positive=False, not_negative=False)
    for dim in data.dims:
        _check_integer_index(group, data, str(dim))


def _check_subset(group: str, array: xr.DataArray, shape: tuple[int, ...]) -> None:
    said = tuple(int(size) for size in np.atleast_1d(array.attrs.get("shape", [])))
    if said != shape:
        raise SchemaError(
            f"'{array.name}' of group '{group}' holds a subset of the weights and needs the attribute "
            f"shape={list(shape)} of the whole, but has {list(said) or 'none'}. {EXPORT_AGAIN}"
        )
    index = array[array.dims[-1]].values
    if np.any(np.diff(index) <= 0) or index[0] < 0 or index[-1] >= int(np.prod(shape)):
        raise SchemaError(
            f"The coordinate '{array.dims[-1]}' of group '{group}' needs sorted, unique flat indices into a weight of "
            f"{int(np.prod(shape))} entries, but has {index[:5].tolist()}…. {EXPORT_AGAIN}"
        )


def _check_dtype(group: str, array: xr.DataArray) -> None:
    if array.dtype != np.float32:
        raise SchemaError(
            f"'{array.name}' of group '{group}' needs float32, but has {array.dtype}. "
            "Convert it with .astype('float32')."
        )


def _check_numbers(group: str, array: xr.DataArray, *, positive: bool, not_negative: bool) -> None:
    if not_negative and "reason" in array.attrs and np.isnan(array.values).all():
        return  # no weight of the file has a posterior: the attribute says so
    lowest, highest = _extremes(array)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        count = int((~np.isfinite(array.values)).sum())
        raise SchemaError(
            f"'{array.name}' of group '{group}' must be finite, but {count} of {array.size} values are not. "
            "Look for a diverged fit (loss, learning rate) and fit again."
        )
    if (not_negative and lowest < 0) or (positive and lowest <= 0):
        raise SchemaError(
            f"'{array.name}' of group '{group}' is a standard deviation and must be "
            f"{'above' if positive else 'at least'} 0, but the smallest is {lowest:g}. {EXPORT_AGAIN}"
        )


def _extremes(array: xr.DataArray) -> tuple[float, float]:
    """Return the least and the largest value, NaN where one is NaN; a large array is read in parts."""
    if not array.size:
        return 1.0, 1.0
    dim = max(array.dims, key=lambda name: array.sizes[name], default=None)
    step = array.size if dim is None else max(1, array.sizes[dim] * MOST_BYTES // array.nbytes)
    if dim is None or step >= array.sizes[dim]:
        found = array.values
        return float(found.min()), float(found.max())
    ends = []
    for first in range(0, array.sizes[dim], step):
        part = array.isel({dim: slice(first, first + step)}).values
        ends.append((part.min(), part.max()))
    return float(np.min(ends)), float(np.max(ends))


def _check_integer_index(group: str, data: xr.Dataset, dim: str) -> None:
    if dim not in data.coords:
        raise SchemaError(
            f"Dim '{dim}' of group '{group}' needs an integer coordinate, but has none. "
            f"Add one: .assign_coords({{{dim!r}: range(n)}})."
        )
    if not np.issubdtype(data[dim].dtype, np.integer):
        raise SchemaError(
            f"Coordinates over weights must be integers, since texts take 35 bytes a weight, but '{dim}' of group "
            f"'{group}' has {data[dim].dtype}. Replace it by numbers and keep the texts in an attribute."
        )
