"""The spectra of Kronecker factors, beside the moments of their layer: which side of it carries the curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from wiu_pyro.export.sources import Chain
from wiu_pyro.schema import moments_group

__all__ = ["with_spectra"]

MEANING = "mean curvature along each {side} direction of the Kronecker eigenbasis, relative to the prior"


def with_spectra(groups: Mapping[str, xr.Dataset], chains: Sequence[Chain]) -> dict[str, xr.Dataset]:
    """Add `grad_eigenvalues` and `input_eigenvalues` to the moments of layers in a Kronecker eigenbasis.

    Parameters
    ----------
    groups : mapping of str to Dataset
        With groups `moments_<name>`.
    chains : sequence of Chain

    Returns
    -------
    dict of str to Dataset
        The variables have the dims (chain, <name>_grad_direction) and (chain, <name>_input_direction), and a dim
        <name>_group before the last in a grouped convolution; float32. Of plain KFAC, products of the two over the mean
        of either are all eigenvalues of the curvature relative to the prior.
    """
    found = dict(groups)
    closed = [chain.closed for chain in chains if chain.closed is not None]
    if not closed or len(closed) < len(chains):
        return found
    for layer in closed[0].layer_spectra:
        group = moments_group(layer)
        if group not in found or any(layer not in one.layer_spectra for one in closed):
            continue
        sides = zip(*(one.layer_spectra[layer] for one in closed), strict=True)
        for side, values in zip(("grad", "input"), sides, strict=True):
            variable = _variable(layer, side, values)
            index = {dim: np.arange(size) for dim, size in zip(variable.dims, variable.shape, strict=True)}
            coords = {dim: places for dim, places in index.items() if dim not in found[group].coords}
            found[group] = found[group].assign({f"{side}_eigenvalues": variable}).assign_coords(coords)
    return found


def _variable(layer: str, side: str, values: Sequence[torch.Tensor]) -> xr.Variable:
    array = torch.stack([one.detach().float().cpu() for one in values]).numpy()  # (chain, groups, directions)
    dims = ["chain", f"{layer}_group", f"{layer}_{side}_direction"]
    attrs = {"long_name": MEANING.format(side="output" if side == "grad" else "input")}
    return (
        xr.Variable(dims, array, attrs) if array.shape[1] > 1 else xr.Variable([dims[0], dims[2]], array[:, 0], attrs)
    )
