"""Does the input side or the output side of a layer carry the uncertainty? Read from the spectra of its KFAC factors.

In the eigenbasis of both factors the posterior of a layer is diagonal: along input direction i and output direction j
its variance is 1 / (1 + c) of the prior's, with c the product of an eigenvalue of either side.

References
----------
Martens and Grosse (2015), Optimizing Neural Networks with Kronecker-factored Approximate Curvature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema

__all__ = ["RANKS", "SIDES", "factor_spectra"]

SIDES = ("input", "output")
CARRIED = (*SIDES, "both together")
RANKS = 101
VARIABLES = {"input": "input_eigenvalues", "output": "grad_eigenvalues"}


def factor_spectra(idata: Any, layers: list[str], *, num_chains: int) -> xr.Dataset | None:
    """Return what the spectra of the Kronecker factors say of each layer.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layers : list of str
    num_chains : int

    Returns
    -------
    Dataset, dims (chain, layer, side) or None
        As `within_layer` describes them; None where no layer has spectra.
    """
    shape = (num_chains, len(layers), len(SIDES))
    out = {name: np.full(shape, np.nan) for name in ("num_directions", "participation_ratio", "effective_rank")}
    spectrum, carried = np.full((*shape, RANKS), np.nan), np.full((*shape[:2], len(CARRIED)), np.nan)
    structures = schema.dataset(idata, "layers")["structure"].sel(layer=layers).values.tolist()
    for place, layer in enumerate(layers):
        data = schema.dataset(idata, schema.moments_group(layer))
        if not all(name in data for name in VARIABLES.values()):
            continue
        for chain in range(num_chains):
            sides = [data[VARIABLES[side]].isel(chain=chain).values.astype(np.float64) for side in SIDES]
            if not all(values.max() > 0 for values in sides):
                continue
            for side, values in enumerate(sides):
                at = chain, place, side
                out["num_directions"][at] = values.size
                out["participation_ratio"][at] = metrics.participation_ratio(values)
                out["effective_rank"][at] = metrics.effective_rank(values)
                spectrum[at] = np.quantile(values, np.linspace(1, 0, RANKS))
            if structures[place] == "kfac":
                carried[chain, place] = _carried(*sides)
    if np.isnan(spectrum).all():
        return None
    variables: dict[str, Any] = {name: (("chain", "layer", "side"), values) for name, values in out.items()}
    variables["spectrum"] = (("chain", "layer", "side", "rank"), spectrum)
    variables["carried"] = (("chain", "layer", "carrier"), carried)
    coords = {"layer": layers, "side": list(SIDES), "carrier": list(CARRIED), "rank": np.linspace(0, 1, RANKS)}
    return xr.Dataset(variables, coords=coords)


def _carried(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the shares of the spread of log variance between input directions, output directions, and both, (3,)."""
    means = np.atleast_1d(inputs.mean(axis=-1))  # of either side: the mean curvature of the whole
    parts = []
    for one, other, mean in zip(np.atleast_2d(inputs), np.atleast_2d(outputs), means, strict=True):
        curvature = (one[:, None] * (other / mean)).astype(np.float32)  # (in, out)
        parts.append(metrics.crossed_shares(np.log1p(curvature, out=curvature)))
    return np.mean(parts, axis=0)
