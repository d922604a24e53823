"""One network's layer laid out as units: its weight as outputs by inputs by kernel positions, its bias beside.

Arrays stay in the file's float32 and are views where they can be, so that layers of millions of weights pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.diagnostics.weight_distribution import FLOOR

__all__ = ["Moments", "Units", "contraction", "layer_units", "log_signal_to_noise", "pooled_moments"]


@dataclass(frozen=True)
class Moments:
    """Moments of one network's weights, all of one shape.

    Attributes
    ----------
    mean, sd : ndarray, float32
        Posterior mean and marginal sd, in units of the weight; an sd of 0 marks a weight fixed at a point estimate.
    sd_conditional : ndarray or None
        Sd given all other weights; None where the file has none.
    prior_mean, prior_sd : ndarray
        Broadcast to the shape of `mean`.
    """

    mean: np.ndarray
    sd: np.ndarray
    sd_conditional: np.ndarray | None
    prior_mean: np.ndarray
    prior_sd: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """Where a weight has an uncertainty: not fixed at a point estimate."""
        return self.sd > 0

    def sd_of(self, *, conditional: bool) -> np.ndarray:
        """Return the conditional sd where it is asked for and known, else the marginal one."""
        return self.sd_conditional if conditional and self.sd_conditional is not None else self.sd


@dataclass(frozen=True)
class Units:
    """One network's layer as outputs by inputs.

    Attributes
    ----------
    weight : Moments
        Of shape (out, in, positions): one position in a dense layer, kh * kw in a convolution.
    bias : Moments or None
        Of shape (out,).
    """

    weight: Moments
    bias: Moments | None

    @property
    def clusters(self) -> tuple[int, int]:
        """Number of outputs and of inputs."""
        return self.weight.mean.shape[0], self.weight.mean.shape[1]


def layer_units(idata: Any, layer: str, *, chain: int) -> Units | None:
    """Return one network's layer as outputs by inputs.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layer : str
    chain : int
        Position along `chain`.

    Returns
    -------
    Units or None
        None of a layer that is no such table: without a weight of two dims or more, or with parameters beside weight
        and bias.
    """
    data = schema.dataset(idata, schema.moments_group(layer))
    ends = [f"{layer}_out", f"{layer}_in"]
    names = set(schema.moment_parameters(data))
    if not names <= {"weight", "bias"} or "mean" not in data or not {*ends} <= {*data["mean"].dims}:
        return None
    if "bias" in names and data["bias_mean"].dims != ("chain", ends[0]):
        return None
    one = data.isel(chain=chain)
    dims = (*ends, *(dim for dim in one["mean"].dims if dim not in ends))
    weight = _moments(one, "", dims)
    shape = (*weight.mean.shape[:2], -1)
    flat = Moments(
        mean=weight.mean.reshape(shape),
        sd=weight.sd.reshape(shape),
        sd_conditional=None if weight.sd_conditional is None else weight.sd_conditional.reshape(shape),
        prior_mean=weight.prior_mean.reshape(shape),
        prior_sd=weight.prior_sd.reshape(shape),
    )
    return Units(flat, _moments(one, "bias_", (ends[0],)) if "bias" in names else None)


def pooled_moments(idata: Any, layer: str, *, chain: int) -> list[Moments]:
    """Return the moments of each parameter of one network's layer, whatever its shape.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layer : str
    chain : int
        Position along `chain`.

    Returns
    -------
    list of Moments
    """
    one = schema.dataset(idata, schema.moments_group(layer)).isel(chain=chain)
    return [_moments(one, prefix, one[f"{prefix}mean"].dims) for prefix in schema.moment_parameters(one).values()]


def contraction(moments: Moments, *, conditional: bool = False) -> np.ndarray:
    """Return 1 - sd² / prior sd² of each weight, float32; NaN where a weight is fixed at a point estimate."""
    ratio = moments.sd_of(conditional=conditional) / moments.prior_sd
    found = np.subtract(1, np.square(ratio, out=ratio), out=ratio)
    found[~moments.free] = np.nan
    return found


def log_signal_to_noise(moments: Moments) -> np.ndarray:
    """Return log max(|mean| / sd, 0.001) of each weight, float32; NaN where a weight is fixed at a point estimate."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(moments.mean) / moments.sd
    found = np.log(np.maximum(ratio, np.float32(FLOOR), out=ratio), out=ratio)
    found[~moments.free] = np.nan
    return found


def _moments(one: xr.Dataset, prefix: str, dims: tuple[Any, ...]) -> Moments:
    mean = one[f"{prefix}mean"].transpose(*dims)
    whole = [np.broadcast_to(_prior(one[prefix + name], mean), mean.shape) for name in ("prior_mean", "prior_sd")]
    conditional = one[f"{prefix}sd_conditional"].transpose(*dims).values if f"{prefix}sd_conditional" in one else None
    return Moments(mean.values, one[f"{prefix}sd"].transpose(*dims).values, conditional, whole[0], whole[1])


def _prior(part: xr.DataArray, mean: xr.DataArray) -> np.ndarray:
    return part.values if part.ndim == 0 else part.transpose(*mean.dims).values
