"""Where on the image is the first layer uncertain: its uncertainty mapped back to the pixels it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.diagnostics.moments import refuse_improper, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.errors import SchemaError

__all__ = ["input_map"]


def input_map(idata: Any, *, image_shape: tuple[int, int, int] | None = None) -> xr.Dataset:
    r"""Return the uncertainty of the weights that read each pixel, for a dense first layer on flattened images.

    Parameters
    ----------
    idata : InferenceData or DataTree
    image_shape : (int, int, int), optional
        Channels, height and width of the images, where the file does not hold the images. Pixels are taken to be
        flattened in this order, as `torch.nn.Flatten` does.

    Returns
    -------
    Dataset, dims (channel, height, width) or, with several chains, (chain, channel, height, width)
        ``sd_to_prior``: root mean square over the outputs of sd / prior sd; 1 where data say nothing about a pixel's
        weights, NaN where all of them are held at their point estimate. ``mean_to_prior``: root mean square over the
        outputs of \|mean - prior mean\| / prior sd.
        ``pixel_sd`` (channel, height, width): sd of the pixel over the images, where the file holds them.
        Attribute ``layer``.

    Raises
    ------
    SchemaError
        If the first layer is not dense, is held at its point estimate, or does not fit the images' size.
    """
    refuse_improper(idata)
    name = schema.layer_names(idata)[0]
    data = schema.dataset(idata, schema.moments_group(name))
    shape = data["mean"].shape[1:] if "mean" in data else ()
    if len(shape) != 2:
        raise SchemaError(
            f"A dense first layer, outputs by pixels, is needed, but the weight of '{name}' has shape {shape}. "
            "Kernels of a convolution read every pixel: look at wiu_pyro.diagnostics.weight_map."
        )
    if not bool((data["sd"] > 0).any()):
        raise SchemaError(
            f"A posterior of the first layer is needed, but '{name}' is held at its point estimate. Look at a layer "
            "with a posterior: wiu_pyro.diagnostics.weight_map."
        )
    images = _images(idata)
    size = image_shape or (images.shape[1:] if images is not None else None)
    if size is None or int(np.prod(size)) != shape[1]:
        raise SchemaError(
            f"Images of {shape[1]} pixels, as many as layer '{name}' has inputs, are needed, but the image shape is "
            f"{size or 'unknown: the file holds no images'}. Pass image_shape=(channels, height, width)."
        )
    prior_sd = data["prior_sd"].values.astype(np.float64)
    sd = data["sd"].values.astype(np.float64)
    ratio = np.where(sd > 0, sd, np.nan) / prior_sd
    shift = (data["mean"].values.astype(np.float64) - data["prior_mean"].values) / prior_sd
    dims = ("chain", "channel", "height", "width")
    out = xr.Dataset({"sd_to_prior": (dims, _rms(ratio, size)), "mean_to_prior": (dims, _rms(shift, size))})
    if images is not None and images.shape[1:] == tuple(size):
        out["pixel_sd"] = (dims[1:], images.std(axis=0, dtype=np.float64))
    out.attrs = carried_attrs(idata) | {"layer": name}
    return squeeze_chain(out)


def _rms(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    # (chain, out, in) -> (chain, channel, height, width)
    known = ~np.isnan(values)
    counts = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    return np.sqrt(np.nansum(values**2, axis=1) / counts).reshape(values.shape[0], *size)


def _images(idata: Any) -> np.ndarray | None:
    """Return the images (obs_id, channel, height, width) the file holds, or None."""
    if "constant_data" not in schema.groups(idata):
        return None
    data = schema.dataset(idata, "constant_data")
    if "x" not in data or data["x"].ndim != 4:
        return None
    return data["x"].values
