"""The spectra of Kronecker factors, beside the moments of their layer: which side of it carries the curvature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from wiu_pyro.export.sources import Chain

__all__ = ["with_spectra"]

MEANING = "mean curvature along each {side} direction of the Kronecker eigenbasis, relative to the prior"


def with_spectra(layer: str, moments: xr.Dataset, chains: Sequence[Chain]) -> xr.Dataset:
    """Add `grad_eigenvalues` and `input_eigenvalues` to the moments of a layer in a Kronecker eigenbasis.

    Parameters
    ----------
    layer : str
    moments : Dataset
        Group `moments_<layer>`.
    chains : sequence of Chain

    Returns
    -------
    Dataset
        The variables have the dims (chain, <layer>_grad_direction) and (chain, <layer>_input_direction), and a dim
        <layer>_group before the last in a grouped convolution; float32. Of plain KFAC, products of the two over the
        mean of either are all eigenvalues of the curvature relative to the prior.
    """
    spectra = [{} if chain.closed is None else chain.closed.layer_spectra for chain in chains]
    if not all(layer in one for one in spectra):
        return moments
    found = moments
    for side, values in zip(("grad", "input"), zip(*(one[layer] for one in spectra), strict=True), strict=True):
        variable = _variable(layer, side, values)
        index = {dim: np.arange(size) for dim, size in zip(variable.dims, variable.shape, strict=True)}
        coords = {dim: places for dim, places in index.items() if dim not in found.coords}
        found = found.assign({f"{side}_eigenvalues": variable}).assign_coords(coords)
    return found


def _variable(layer: str, side: str, values: Sequence[torch.Tensor]) -> xr.Variable:
    array = torch.stack([one.detach().float().cpu() for one in values]).numpy()  # (chain, groups, directions)
    dims = ["chain", f"{layer}_group", f"{layer}_{side}_direction"]
    attrs = {"long_name": MEANING.format(side="output" if side == "grad" else "input")}
    return (
        xr.Variable(dims, array, attrs) if array.shape[1] > 1 else xr.Variable([dims[0], dims[2]], array[:, 0], attrs)
    )
