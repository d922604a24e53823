"""Join runs of several seeds into one posterior along `chain`; weights are never pooled over chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build
from wiu_pyro.schema import dataset, groups, validate

__all__ = ["concat"]

CONCAT = {"data_vars": "minimal", "coords": "minimal", "compat": "equals", "combine_attrs": "override"}
# What makes two posteriors runs of the same kind. Their data, model and versions may be named differently.
SAME_ATTRS = (
    "guide",
    "approximation",
    "curvature",
    "structure",
    "prior",
    "likelihood",
    "num_data",
    "temperature",
    "prediction_default",
)


def concat(runs: Sequence[Any]) -> Any:
    """Join posteriors of the same kind, fitted from several seeds, along `chain`.

    Each run's chains become chains of the result, numbered from 0. Variables without a chain dim are the same in every
    run and are taken from the first. Hidden units of two networks do not correspond, so nothing is averaged here:
    summarise layers over chains, never single weights.

    Parameters
    ----------
    runs : sequence of InferenceData or DataTree
        At least one; exported with the same layers, number of draws, subset of weights and observations.

    Returns
    -------
    InferenceData or DataTree
        Attribute `seed` lists the seeds; `converged` is "no" if one run has not converged and "yes" if all have;
        `convergence_change` is the largest of the runs.

    Raises
    ------
    SchemaError
        If there is no run, one does not follow the data contract, or they are not of the same kind: naming the
        attribute, group or variable that differs.

    Examples
    --------
    ``wiu.concat([wiu.load(f"seed{seed}.nc") for seed in range(5)])``
    """
    runs = list(runs)
    if not runs:
        raise SchemaError("At least one posterior is needed, but the list is empty. Pass those that wiu.load returned.")
    for run in runs:
        validate(run)
    _check_same_attrs([dataset(run, "posterior").attrs for run in runs])
    names = groups(runs[0])
    for position, run in enumerate(runs[1:], start=1):
        odd = sorted(set(groups(run)) ^ set(names))
        if odd:
            raise SchemaError(
                f"The same groups are needed in every run, but run {position} differs from run 0 in: {', '.join(odd)}. "
                "Export all runs with the same arguments."
            )
    joined = {name: _join(name, [dataset(run, name) for run in runs]) for name in names}
    joined["posterior"].attrs = _joined_attrs([dataset(run, "posterior").attrs for run in runs])
    return build(joined)


def _check_same_attrs(attrs: list[dict[str, Any]]) -> None:
    for name in SAME_ATTRS:
        values = [one.get(name) for one in attrs]
        for position, value in enumerate(values):
            if value != values[0]:
                raise SchemaError(
                    f"Runs of one posterior are needed, but '{name}' is {values[0]!r} in run 0 and {value!r} in run "
                    f"{position}. Join runs that differ by their seed alone; set others side by side with wiu.compare."
                )


def _join(group: str, parts: list[xr.Dataset]) -> xr.Dataset:
    first = parts[0]
    if group == "training":
        parts = _to_longest(parts)
    if group == "layers":
        parts = _alike_at_points(parts)
        first = parts[0]
    chained = [name for name in first.data_vars if "chain" in first[name].dims]
    for position, part in enumerate(parts[1:], start=1):
        _check_same_layout(group, parts[0], part, position)
    result = first.drop_vars(chained)
    if chained:
        together = [part[chained] for part in parts]
        joined = xr.concat(together, dim="chain", join="exact", **CONCAT)
        result = joined.assign({name: result[name] for name in result.data_vars})[list(first.data_vars)]
        result = result.assign_coords(chain=np.arange(joined.sizes["chain"]))
    result.attrs = dict(first.attrs)
    return result


def _check_same_layout(group: str, first: xr.Dataset, other: xr.Dataset, position: int) -> None:
    where = f"run {position} differs from run 0 in group '{group}'"
    again = "Export all runs with the same arguments, on the same data."
    odd = sorted(map(str, set(first.data_vars) ^ set(other.data_vars)))
    if odd:
        raise SchemaError(f"The same variables are needed in every run, but {where}: {', '.join(odd)}. {again}")
    for dim in first.dims:
        if dim != "chain" and not (dim in other.dims and first[dim].equals(other[dim])):
            sizes = f"{first.sizes[dim]} and {other.sizes.get(dim, 0)}"
            raise SchemaError(f"The same '{dim}' is needed in every run, but {where} ({sizes} entries). {again}")
    for name, array in first.data_vars.items():
        if array.dims != other[name].dims:
            raise SchemaError(
                f"The same dims are needed in every run, but {where}: '{name}' has {array.dims} and "
                f"{other[name].dims}. {again}"
            )
        if "chain" not in array.dims and not array.equals(other[name]):
            raise SchemaError(f"'{name}' has no chain and must be the same in every run, but {where}. {again}")
    for key in ("moments", "factorised", "predictive", "link", "split"):
        if first.attrs.get(key) != other.attrs.get(key):
            raise SchemaError(
                f"The same '{key}' is needed in every run, but {where}: {first.attrs.get(key)!r} and "
                f"{other.attrs.get(key)!r}. {again}"
            )


def _alike_at_points(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """Give a layer that has weights with a posterior in some runs alone the structure it has there."""
    names = [name for name in ("structure", "curvature") if all(name in part for part in parts)]
    point = np.array([part["structure"].values == "point" for part in parts]) if "structure" in names else None
    if point is None or len({part.sizes["layer"] for part in parts}) > 1 or not (point.any(0) & ~point.all(0)).any():
        return parts
    run = (~point).argmax(0)  # for each layer the first run in which it has a posterior
    replaced = {
        name: ("layer", [str(parts[number][name].values[place]) for place, number in enumerate(run)]) for name in names
    }
    return [
        part.assign(
            {name: (dims, np.where(own, values, part[name].values)) for name, (dims, values) in replaced.items()}
        )
        for part, own in zip(parts, point, strict=True)
    ]


def _to_longest(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """Fill runs that stopped earlier with NaN, so that all have the epochs, and the steps, of the longest."""
    for dim in ("epoch", "step"):
        if all(dim in part.dims for part in parts):
            longest = max((part[dim] for part in parts), key=lambda coord: coord.size)
            parts = [part.reindex({dim: longest}) for part in parts]
    return parts


def _joined_attrs(attrs: list[dict[str, Any]]) -> dict[str, Any]:
    result = dict(attrs[0])
    for name, value in result.items():
        values = [one.get(name, "") for one in attrs]
        if isinstance(value, str) and len(set(map(str, values))) > 1:
            result[name] = "; ".join(dict.fromkeys(map(str, values)))
    result["seed"] = [seed for one in attrs for seed in np.atleast_1d(one["seed"]).tolist()]
    states = {one["converged"] for one in attrs}
    result["converged"] = next(state for state in ("no", "not assessed", "yes") if state in states)
    changes = [float(one["convergence_change"]) for one in attrs]
    known = [change for change in changes if not math.isnan(change)]
    result["convergence_change"] = max(known, key=abs) if known else math.nan
    result["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    return result
