"""How much of each layer has a sign the data did not decide: a diagnostic in one file."""

from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import norm

from wiu_pyro.errors import SchemaError
from wiu_pyro.schema import dataset, layer_names, moments_group


def undecided_signs(idata: Any, *, level: float = 0.05) -> xr.Dataset:
    """Return the share of each layer's weights whose sign is uncertain.

    Parameters
    ----------
    idata : InferenceData or DataTree
        A posterior, as `wiu_pyro.load` returns it.
    level : float
        A sign is undecided where the posterior gives the other sign at least this probability; between 0 and 0.5.

    Returns
    -------
    Dataset, dims (chain, layer)
        ``undecided`` : share of the weights, 0 to 1. Under the prior alone every sign is undecided: 1.

    Raises
    ------
    SchemaError
        If `level` is outside 0 to 0.5.
    """
    if not 0 < level <= 0.5:
        raise SchemaError(f"A level above 0 and at most 0.5 is needed, but it is {level}. Leave it out for 0.05.")
    shares = []
    for layer in layer_names(idata):
        moments = dataset(idata, moments_group(layer))
        other_sign = norm.cdf(-np.abs(moments["mean"]) / moments["sd"])  # (chain, *weight_dims)
        shares.append((other_sign >= level).reshape(len(other_sign), -1).mean(1))  # (chain,)
    return xr.Dataset({"undecided": (("chain", "layer"), np.stack(shares, 1))}, coords={"layer": layer_names(idata)})
