"""The figures of pruned networks as one table: put together, taken over seeds, and each variable described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.interventions.config import PruneConfig
from wiu_pyro.interventions.judgement import SCORES, safe_sparsity, seeds_no_worse

__all__ = ["add_seeds", "described", "filled"]

DIMS = {
    "whole": ("procedure", "ranking", "criterion", "network"),
    "layer": ("layer", "criterion"),
    "unpruned": ("network",),
    "order": ("ranking", "criterion"),
    "removed": ("criterion", "layer"),
    "common": ("criterion", "other"),
}
DESCRIPTIONS = {
    "error": ("share of images classified wrong", "1"),
    "nll": ("mean negative log likelihood of the labels", "nats"),
    "ece": ("expected calibration error, 15 bins", "1"),
    "safe_sparsity": ("largest share removed at which the error is shown to rise by less than the margin", "1"),
    "removed": ("share of the layer's weights removed where all layers are ranked together", "1"),
    "kept_in_common": ("share of the weights kept that two criteria have in common", "1"),
    "evidence_change": ("change in log evidence when the removed weights' priors shrink to 0", "nats"),
    "evidence_sparsity": ("share of the weights the evidence is better without, each by itself", "1"),
    "num_candidates": ("weights that can be removed", "1"),
    "num_left_out": ("weights at a point estimate, which are not removed", "1"),
}


def filled(
    parts: Mapping[str, Mapping[tuple[str, ...], Mapping[str, Any]]], coords: Mapping[str, Sequence[Any]]
) -> xr.Dataset:
    """Return one network's figures as a table; NaN where there is none.

    Parameters
    ----------
    parts : mapping
        What `Curves.everything` returned.
    coords : mapping of str to sequence
        Names along each dim.

    Returns
    -------
    Dataset
    """
    table = xr.Dataset(coords={dim: list(values) for dim, values in coords.items()})
    for part, rows in parts.items():
        for place, figures in rows.items():
            at = dict(zip(DIMS[part], place, strict=True))
            for name, value in figures.items():
                dims = (*DIMS[part], "sparsity") if np.ndim(value) else DIMS[part]
                if name not in table:
                    table[name] = (dims, np.full([len(coords[dim]) for dim in dims], np.nan))
                table[name].loc[at] = value
    return table


def add_seeds(table: xr.Dataset, config: PruneConfig, *, replicates: int) -> xr.Dataset:
    """Return the table with means over its networks, and with five or more their intervals and safe sparsities.

    Parameters
    ----------
    table : Dataset
        With a dim ``chain``.
    config : PruneConfig
    replicates : int
        How many of the networks were trained from different seeds; too few give no interval.

    Returns
    -------
    Dataset
    """
    out = table.copy()
    enough = replicates >= metrics.FEWEST_SEEDS
    for prefix in ("", "layer_"):
        for name in (f"{prefix}{score}{end}" for score in SCORES for end in ("", "_difference")):
            if name in table:
                _add_interval(out, name, config.level, enough=enough)
        rise = f"{prefix}error_difference"
        if enough and rise in table:
            out[f"seeds_{prefix}safe_sparsity"] = _safe(table[rise], config)
    return out


def _add_interval(table: xr.Dataset, name: str, level: float, *, enough: bool) -> None:
    values = table[name].transpose("chain", ..., "sparsity")
    parts = {"": "estimate", "_low": "low", "_high": "high"} if enough else {"": "estimate"}
    out = {end: np.full(values.shape[1:], np.nan) for end in parts}
    for place in np.ndindex(values.shape[1:-1]):
        found = metrics.student_intervals(values.values[(slice(None), *place)], level=level)
        for end, part in parts.items():
            out[end][place] = getattr(found, part)
    for end, array in out.items():
        table[f"seeds_{name}{end}"] = (values.dims[1:], array)


def _safe(rises: xr.DataArray, config: PruneConfig) -> xr.DataArray:
    values = rises.transpose("chain", ..., "sparsity")
    out = np.full(values.shape[1:-1], np.nan)
    for place in np.ndindex(out.shape):
        one = values.values[(slice(None), *place)]  # (chain, sparsity)
        if np.isfinite(one).all():
            no_worse = seeds_no_worse(one, level=config.level, margin=config.margin)
            out[place] = safe_sparsity(no_worse, config.sparsities)
    return xr.DataArray(out, dims=values.dims[1:-1])


def described(table: xr.Dataset) -> None:
    """Give each variable its meaning and unit."""
    for key in table.data_vars:
        name = str(key)
        bare = name.removeprefix("seeds_").removeprefix("unpruned_").removeprefix("layer_")
        for end in ("_low", "_high", "_difference"):
            bare = bare.removesuffix(end)
        if bare in DESCRIPTIONS:
            meaning, unit = DESCRIPTIONS[bare]
            table[key].attrs = {"long_name": f"{meaning}{_suffix(name)}", "units": unit}


def _suffix(name: str) -> str:
    words = {
        "layer_": ", one layer pruned alone",
        "unpruned_": ", unpruned",
        "_difference": ", minus that of the unpruned network",
        "seeds_": ", over networks",
        "_low": ": lower end",
        "_high": ": upper end",
    }
    return "".join(text for mark, text in words.items() if mark in name)
