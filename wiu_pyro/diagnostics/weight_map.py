"""Do the weights within a layer differ, along outputs or inputs? One layer's weight as a matrix of one quantity."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.moments import squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.errors import DataError, SchemaError, near_matches

__all__ = ["QUANTITIES", "weight_map"]

QUANTITIES = {
    "mean": "posterior mean",
    "sd": "posterior sd",
    "sd_to_prior": "posterior sd / prior sd",
    "signal_to_noise": "signal-to-noise |mean| / sd",
    "contraction": "contraction 1 − sd² / prior sd²",
}


def weight_map(
    idata: Any, layer: str | None = None, quantity: str = "sd_to_prior", *, max_size: int = 200
) -> xr.Dataset:
    """Return one layer's weight as a matrix, outputs by inputs, of one quantity; large layers as means over blocks.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layer : str, optional
        The first layer with a weight of two or more dims and a posterior, if not given.
    quantity : str
        ``"mean"``, ``"sd"``, ``"sd_to_prior"``, ``"signal_to_noise"`` or ``"contraction"``.
    max_size : int
        Most rows and columns of the matrix; beyond it, blocks of weights are averaged.

    Returns
    -------
    Dataset, dims (output, input) or, with several chains, (chain, output, input)
        ``value``: the quantity, averaged over each block, but for the mean without weights that are held at their point
        estimate, NaN where all are. ``output_share`` and ``input_share`` (no dims): how much of the weights' variation
        around their mean is between outputs and between inputs, 0 to 1 each, by sums of squares; NaN where all weights
        are equal or some are held. The rest differs from weight to weight. A convolution's input channels and kernel
        positions lie along ``input`` in the order of the weight. ``output``, ``input``: index of
        each block's first output and input. Attributes: ``layer``, ``quantity``, ``label``, ``shape`` of the weight,
        ``block`` (outputs, inputs).

    Raises
    ------
    DataError
        If the quantity is unknown or `max_size` below 1.
    SchemaError
        If there is no such layer, its weight is no matrix, or all of it is held at its point estimate.
    """
    if quantity not in QUANTITIES:
        raise DataError(f"Unknown quantity '{quantity}'. {near_matches(quantity, QUANTITIES)}")
    if max_size < 1:
        raise DataError(f"A map needs at least one row and column, got max_size={max_size}. Use 200.")
    name = layer or _first_matrix(idata)
    data = _moments(idata, name)
    shape = data["mean"].shape[1:]
    if len(shape) < 2:
        raise SchemaError(f"A weight with outputs and inputs is needed, but that of layer '{name}' has shape {shape}.")
    if quantity != "mean" and not bool((data["sd"] > 0).any()):
        raise SchemaError(
            f"Weights with a posterior are needed for a map of the {QUANTITIES[quantity]}, but layer '{name}' is held "
            "at its point estimate. Choose another layer, or quantity='mean'."
        )
    values = _quantity(data, quantity)
    flat = values.reshape(values.shape[0], shape[0], -1)  # (chain, out, in * kh * kw)
    block = tuple(int(np.ceil(size / max_size)) for size in flat.shape[1:])
    starts = [np.arange(0, size, step) for size, step in zip(flat.shape[1:], block, strict=True)]
    out = xr.Dataset(
        {"value": (("chain", "output", "input"), _block_means(flat, starts))} | _shares(flat),
        coords={"output": starts[0], "input": starts[1]},
        attrs=carried_attrs(idata)
        | {
            "layer": name,
            "quantity": quantity,
            "label": QUANTITIES[quantity],
            "shape": list(shape),
            "block": list(block),
        },
    )
    return squeeze_chain(out)


def _moments(idata: Any, layer: str) -> xr.Dataset:
    known = schema.layer_names(idata)
    if layer not in known:
        raise SchemaError(f"Unknown layer '{layer}'. {near_matches(layer, known)}")
    data = schema.dataset(idata, schema.moments_group(layer))
    if "mean" not in data:
        raise SchemaError(f"Layer '{layer}' has no parameter 'weight'; it holds {', '.join(map(str, data.data_vars))}.")
    return data


def _first_matrix(idata: Any) -> str:
    held = schema.groups(idata)
    for name in schema.layer_names(idata):
        if schema.moments_group(name) in held:
            data = schema.dataset(idata, schema.moments_group(name))
            if "mean" in data and data["mean"].ndim >= 3 and bool((data["sd"] > 0).any()):
                return name
    raise SchemaError(
        "A layer with a posterior over a weight of outputs by inputs is needed, but the file holds none. Export a "
        "posterior of such a layer."
    )


def _quantity(data: xr.Dataset, quantity: str) -> np.ndarray:
    """Return the quantity of each weight; NaN, but for the mean, where a weight is held at its point estimate."""
    mean, sd = data["mean"].values.astype(np.float64), data["sd"].values.astype(np.float64)
    prior_sd = data["prior_sd"].values.astype(np.float64)
    if quantity in ("sd_to_prior", "contraction") and np.isnan(prior_sd).all():
        raise SchemaError(
            f"A prior with an sd is needed for '{quantity}', but that of these weights is improper. Look at their 'sd' "
            "or 'signal_to_noise'."
        )
    if quantity == "mean":
        return mean
    if quantity == "sd_to_prior":
        values = sd / prior_sd
    elif quantity == "contraction":
        values = metrics.contraction(sd, prior_sd)
    else:
        values = sd if quantity == "sd" else metrics.signal_to_noise(mean, sd)
    return np.where(sd > 0, values, np.nan)


def _shares(values: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Return the parts of the variation (chain, out, in) that lie between outputs and between inputs."""
    if np.isnan(values).any():  # with gaps the parts do not add up
        return {name: ("chain", np.full(len(values), np.nan)) for name in ("output_share", "input_share")}
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        total = values.var(axis=(1, 2))
        total = np.where(total > 1e-12 * np.square(values).mean(axis=(1, 2)), total, np.nan)  # beyond rounding
        between = {"output_share": values.mean(axis=2).var(axis=1), "input_share": values.mean(axis=1).var(axis=1)}
        return {name: ("chain", part / total) for name, part in between.items()}


def _block_means(values: np.ndarray, starts: list[np.ndarray]) -> np.ndarray:
    """Return means over blocks of rows and columns, (chain, blocks of rows, blocks of columns), NaN left out."""
    known = ~np.isnan(values)
    sums, counts = (
        np.add.reduceat(np.add.reduceat(part, starts[0], axis=1), starts[1], axis=2)
        for part in (np.where(known, values, 0.0), known.astype(np.int64))
    )
    return sums / np.where(counts > 0, counts, np.nan)
