"""Intervals of an agreement: over networks, over a layer's outputs and inputs, or over images; all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro.metrics.simultaneous import bootstrap_intervals, student_intervals

__all__ = ["between_networks", "function_intervals", "layer_intervals"]

ALMOST = 1 - 1e-9


def _to_scale(name: str, values: Any) -> np.ndarray:
    return np.arctanh(np.clip(values, -ALMOST, ALMOST)) if name.endswith("rank") else np.asarray(values)


def _from_scale(name: str, values: np.ndarray) -> np.ndarray:
    if name.endswith("rank"):
        return np.tanh(values)
    return np.maximum(values, 0) if name.endswith("distance") else values


def between_networks(table: xr.Dataset, names: Sequence[str], *, level: float) -> xr.Dataset:
    """Return means over networks, with intervals by Student's t, those of one kind together.

    Parameters
    ----------
    table : Dataset, with a dim network
    names : sequence of str
        What gets an interval.
    level : float

    Returns
    -------
    Dataset
        Without that dim.
    """
    out = _averaged(table)
    for name in names:
        dims = table[name].dims[1:]
        values = _to_scale(name, table[name].values).reshape(table.sizes["network"], -1)
        # kinds are questions of their own: NaN columns do not count
        found = student_intervals(values, level=level)
        for end, part in (("", found.estimate), ("_low", found.low), ("_high", found.high)):
            out[f"{name}{end}"] = (dims, _from_scale(name, part).reshape(table[name].shape[1:]))
    return out


def _averaged(table: xr.Dataset) -> xr.Dataset:
    texts = [name for name in table.data_vars if table[name].dtype.kind in "OUS"]
    out = table.drop_vars(texts).mean("network")
    out["with_reference"] = out["with_reference"].astype(int)
    return out.assign({name: table[name].isel(network=0) for name in texts})


def layer_intervals(
    table: xr.Dataset, drawn: Mapping[tuple[int, ...], Mapping[str, np.ndarray]], fewest: np.ndarray, *, level: float
) -> xr.Dataset:
    """Return means over the networks, with the lowest and highest end of their own bootstrap intervals.

    Parameters
    ----------
    table : Dataset, with a dim network
    drawn : mapping of (network, pair, layer, kind) to the replicates of each figure
    fewest : ndarray, shape (network, pair, layer)
        Fewest units that were resampled.
    level : float
        Of the intervals of one figure and kind together.

    Returns
    -------
    Dataset
        Without that dim.
    """
    names = list(next(iter(drawn.values()))) if drawn else []
    out = _averaged(table)
    for name in [str(name) for name in table.data_vars if table[name].dims[1:] == ("pair", "layer", "kind")]:
        if name.endswith(("_mc", "_ceiling")):
            continue
        ends = np.full((2, *table[name].shape), np.nan)
        if name in names:
            for network in range(table.sizes["network"]):
                for kind in range(table.sizes["kind"]):
                    own = {at[1:3]: values[name] for at, values in drawn.items() if (at[0], at[3]) == (network, kind)}
                    place = ends[:, network, ..., kind]
                    value = table[name].values[network, ..., kind]
                    _fill(place, name, value, level=level, drawn=own, fewest=fewest[network])
        out[f"{name}_low"] = (table[name].dims[1:], ends[0].min(axis=0))
        out[f"{name}_high"] = (table[name].dims[1:], ends[1].max(axis=0))
    return out


def _fill(
    ends: np.ndarray, name: str, value: np.ndarray, *, level: float, drawn: Mapping[Any, np.ndarray], fewest: np.ndarray
) -> None:
    """Write low and high of one figure and kind over pairs and layers."""
    places = list(drawn)
    if not places:
        return
    at = tuple(np.array(places).T)
    columns = _to_scale(name, np.stack([drawn[place] for place in places], axis=1))
    found = bootstrap_intervals(_to_scale(name, value[at]), columns, level=level, num_clusters=fewest[at])
    ends[(0, *at)], ends[(1, *at)] = _from_scale(name, found.low), _from_scale(name, found.high)


def function_intervals(table: xr.Dataset, names: Sequence[str], *, level: float) -> xr.Dataset:
    """Add the intervals over images: Normal, all pairs together (Bonferroni).

    Parameters
    ----------
    table : Dataset
        With each name and its standard error, ``<name>_se``; of a rank correlation that of Fisher's z.
    names : sequence of str
    level : float

    Returns
    -------
    Dataset
    """
    for name in names:
        comparisons = max(int(table[name].notnull().sum()), 1)
        reach = float(stats.norm.isf((1 - level) / (2 * comparisons))) * table[f"{name}_se"].values
        centre = _to_scale(name, table[name].values)
        for end, sign in (("low", -1), ("high", 1)):
            table[f"{name}_{end}"] = (table[name].dims, _from_scale(name, centre + sign * reach))
    return table
