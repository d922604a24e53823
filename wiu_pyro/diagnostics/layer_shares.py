"""How unequally what the data said is spread over the layers: Gini coefficient and entropy of their shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from wiu_pyro import metrics

__all__ = ["layer_shares"]

INDICES: dict[str, Callable[[np.ndarray], float]] = {"gini": metrics.gini, "evenness": metrics.evenness}


def layer_shares(table: xr.Dataset, *, level: float, seeds: bool) -> xr.Dataset:
    """Return Gini coefficient and evenness of the layers' KL and effective parameters, in all and per weight.

    Parameters
    ----------
    table : Dataset, dims (chain, layer)
        What `layer_uncertainty` returned.
    level : float
        Of each interval by itself.
    seeds : bool
        Whether the chains are replicates enough for intervals over them.

    Returns
    -------
    Dataset, dims (chain, share_of) and (share_of)
        ``gini``, ``evenness``; with `seeds` also ``gini_low`` and so on. NaN where a layer's amount is unknown or
        negative. Layers at a point estimate have no effective parameters and do not count.
    """
    amounts = _amounts(table)
    out = xr.Dataset(coords={"share_of": list(amounts)})
    for name, index in INDICES.items():
        each = np.array([[_index(row, index) for row in values] for values in amounts.values()]).T  # (chain, share_of)
        out[name] = (("chain", "share_of"), each)
        if seeds:
            found = metrics.student_intervals(each, level=level, simultaneous=False)
            out[f"{name}_low"] = ("share_of", np.maximum(found.low, 0))
            out[f"{name}_high"] = ("share_of", np.minimum(found.high, 1))
    return out


def _amounts(table: xr.Dataset) -> dict[str, np.ndarray]:
    """Return what is shared out, (chain, layer), of the layers that have any."""
    num = table["num_uncertain"] if "num_uncertain" in table else table["num_weights"]
    effective = xr.full_like(table["contraction"], np.nan)
    for name in ("effective_parameters", "contraction_sum"):
        if name in table:
            effective = effective.fillna(table[name])
    found = {"kl": table["kl"], "effective": effective}
    found |= {f"{name}_per_weight": values / num for name, values in list(found.items())}
    point = table["contraction"].isnull().all("chain").values
    return {
        name: values.transpose("chain", "layer").values.astype(np.float64)[:, ~point] for name, values in found.items()
    }


def _index(row: np.ndarray, index: Callable[[np.ndarray], float]) -> float:
    usable = row.size > 1 and np.isfinite(row).all() and (row >= 0).all() and row.sum() > 0
    return index(row) if usable else float("nan")
