"""What one posterior says of each weight and of each image, laid out so that two posteriors can be set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.diagnostics.predictions import class_probabilities, predictive_group
from wiu_pyro.diagnostics.units import Moments, Units, layer_units, pooled_moments
from wiu_pyro.errors import SchemaError

__all__ = ["KINDS", "FunctionValues", "LayerTable", "function_values", "is_one_posterior", "layer_table"]

KINDS = ("conditional", "marginal")


@dataclass(frozen=True)
class LayerTable:
    """One layer of one network as outputs by inputs by kernel positions; a bias is one input more.

    Attributes
    ----------
    ratio : dict of str to ndarray, shape (outputs, inputs, positions), float32
        Sd / prior sd by kind, ``"conditional"`` or ``"marginal"``, of those the posterior has.
    mean : ndarray, same shape
        Posterior mean / prior sd.
    known : ndarray of bool, same shape
        Where there is a weight, and it has a posterior.
    units : bool
        Whether outputs and inputs are the layer's; False of parameters that form no such table.
    """

    ratio: dict[str, np.ndarray]
    mean: np.ndarray
    known: np.ndarray
    units: bool


@dataclass(frozen=True)
class FunctionValues:
    """What a posterior says of N images.

    Attributes
    ----------
    mean : ndarray, shape (N, C)
        Class probabilities, or predictive means.
    variance : ndarray, shape (N,)
        Of the class probabilities or of the means under the posterior, summed over classes or outputs.
    """

    mean: np.ndarray
    variance: np.ndarray


def is_one_posterior(idata: Any) -> bool:
    """Return whether all chains of a file explore one posterior, as those of MCMC do, and are pooled."""
    return str(schema.attrs(idata).get("guide", "")) == "MCMC"


def layer_table(idata: Any, layer: str, chains: Sequence[int]) -> LayerTable:
    """Return one layer by the draws of some chains together.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layer : str
    chains : sequence of int
        Positions along `chain`; more than one where they explore one posterior.

    Returns
    -------
    LayerTable
    """
    group = schema.dataset(idata, schema.moments_group(layer))
    units = [layer_units(idata, layer, chain=chain) for chain in chains]
    known = [one for one in units if one is not None]
    if known:
        moments = _pooled([_with_bias(one) for one in known])
    else:
        parts = [pooled_moments(idata, layer, chain=chain) for chain in chains]
        moments = _pooled([_flattened(part) for part in parts])
    free = moments.free & np.isfinite(moments.mean)
    scale = np.where(free, moments.prior_sd, np.float32(1))
    ratio = {"marginal": moments.sd / scale}
    if moments.sd_conditional is not None:
        ratio["conditional"] = moments.sd_conditional / scale
    if group.attrs.get("factorised", 0):
        ratio = {"conditional": ratio["marginal"]}
    return LayerTable(ratio, moments.mean / scale, free, units=bool(known))


def _with_bias(units: Units) -> Moments:
    """Return the moments of a layer, (outputs, inputs + 1, positions); where there is no weight, an sd of 0."""
    weight, bias = units.weight, units.bias
    if bias is None:
        return weight
    parts = {}
    for name, values in vars(weight).items():
        if values is None or getattr(bias, name) is None:
            parts[name] = None
            continue
        column = np.zeros((values.shape[0], 1, values.shape[2]), dtype=values.dtype)
        column[:, 0, 0] = getattr(bias, name)
        parts[name] = np.concatenate([values, column], axis=1)
    return Moments(**parts)


def _flattened(parts: Sequence[Moments]) -> Moments:
    """Return the moments of parameters of any shapes in one column, (num_weights, 1, 1)."""
    found = {}
    for name in vars(parts[0]):
        values = [getattr(part, name) for part in parts]
        whole = all(value is not None for value in values)
        found[name] = np.concatenate([value.ravel() for value in values])[:, None, None] if whole else None
    return Moments(**found)


def _pooled(chains: Sequence[Moments]) -> Moments:
    """Return the moments of chains that explore one posterior: total variance, and the mean conditional precision."""
    if len(chains) == 1:
        return chains[0]
    mean = np.mean([one.mean for one in chains], axis=0)
    variance = np.mean([np.square(one.sd) for one in chains], axis=0) + np.var([one.mean for one in chains], axis=0)
    conditional = None
    if all(one.sd_conditional is not None for one in chains):
        with np.errstate(divide="ignore"):
            precision = np.mean([np.square(one.sd_conditional) ** -1.0 for one in chains], axis=0)
        conditional = precision**-0.5
    return Moments(mean, np.sqrt(variance), conditional, chains[0].prior_mean, chains[0].prior_sd)


def function_values(idata: Any, chains: Sequence[int]) -> FunctionValues | None:
    """Return what a posterior says of the images, by the draws of some chains together.

    Parameters
    ----------
    idata : InferenceData or DataTree
    chains : sequence of int

    Returns
    -------
    FunctionValues or None
        None of a file without predictions, or without their variance under the posterior.
    """
    try:
        _, data = predictive_group(idata)
    except SchemaError:
        return None
    name = "probability_variance" if "class" in data.dims else "functional_variance"
    if name not in data:
        return None
    dims = ("chain", "obs_id", "class" if "class" in data.dims else "output")
    if "member" in data.dims:
        if "member_variance" not in data:
            return None  # point estimates
        data = _by_member(data, name)
    chosen = data.isel(chain=list(chains))
    mean = class_probabilities(chosen["mean"]) if "class" in data.dims else chosen["mean"].transpose(*dims).values
    variance = chosen[name].transpose(*dims).values.astype(np.float64)
    total = variance.mean(axis=0) + chosen["mean"].transpose(*dims).values.astype(np.float64).var(axis=0)
    return FunctionValues(mean.mean(axis=0), total.sum(axis=1))


def _by_member(data: xr.Dataset, name: str) -> xr.Dataset:
    """Return what each member of an ensemble says alone, as chains: the networks that others are set beside."""
    parts = data[["member_mean", "member_variance"]].stack(network=("chain", "member"), create_index=False)
    return parts.drop_vars(["chain", "member"], errors="ignore").rename(
        {"member_mean": "mean", "member_variance": name, "network": "chain"}
    )
