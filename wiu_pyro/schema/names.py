"""The data contract: names of groups, dims and attributes, and access that is the same on both ArviZ lines.

ArviZ 0.2x holds groups in an `arviz.InferenceData`, ArviZ 1.x in an `xarray.DataTree`; everything right of this module
reads a file through `groups`, `dataset` and `attrs`, and never asks which of the two it has.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from wiu_pyro.errors import SchemaError, a_name

__all__ = [
    "LAYER_PREFIX",
    "MOMENTS_PREFIX",
    "REQUIRED_ATTRS",
    "SCHEMA_VERSION",
    "attrs",
    "dataset",
    "groups",
    "layer_group",
    "layer_names",
    "moment_parameters",
    "moments_group",
]

SCHEMA_VERSION = "1"
LAYER_PREFIX = "layer_"
MOMENTS_PREFIX = "moments_"

REQUIRED_ATTRS = (
    "wiu_schema",
    "guide",
    "approximation",
    "curvature",
    "structure",
    "prior",
    "likelihood",
    "num_data",
    "seed",
    "temperature",
    "converged",
    "convergence_change",
)


def layer_group(layer: str) -> str:
    """Return the name of the group that holds the draws of `layer`."""
    return LAYER_PREFIX + layer


def moments_group(layer: str) -> str:
    """Return the name of the group that holds the closed-form moments of `layer`."""
    return MOMENTS_PREFIX + layer


def moment_parameters(data: xr.Dataset) -> dict[str, str]:
    """Return the parameters of a moments group and the prefix of their variables: ``""`` or, say, ``"bias_"``."""
    means = [str(name) for name in data.data_vars if str(name).endswith("mean")]
    prefixes = [name.removesuffix("mean") for name in means if not name.endswith("prior_mean")]
    return {prefix.removesuffix("_") or "weight": prefix for prefix in prefixes}


def groups(idata: Any) -> list[str]:
    """Return the names of the groups of an InferenceData or DataTree, without a leading slash."""
    if hasattr(idata, "children"):
        return list(idata.children)
    if callable(getattr(idata, "groups", None)):
        return [name.strip("/") for name in idata.groups()]
    raise SchemaError(
        f"An arviz.InferenceData or an xarray.DataTree is needed, but this is {a_name(idata)}. "
        "Make one with wiu_pyro.to_inference_data(fit) or wiu_pyro.load(path)."
    )


def dataset(idata: Any, group: str) -> xr.Dataset:
    """Return one group as an `xarray.Dataset`.

    Parameters
    ----------
    idata : InferenceData or DataTree
    group : str
        Name of the group, for example ``"layer_fc1"``.

    Returns
    -------
    Dataset

    Raises
    ------
    SchemaError
        If there is no such group.
    """
    known = groups(idata)
    if group not in known:
        raise SchemaError(
            f"Group '{group}' is needed, but the file holds: {', '.join(known)}. "
            "Make one with wiu_pyro.to_inference_data(fit)."
        )
    node = idata[group]
    return node.to_dataset() if hasattr(node, "to_dataset") else node


def attrs(idata: Any) -> dict[str, Any]:
    """Return the attributes of a posterior (of group ``posterior``): guide, curvature, prior, seed, convergence."""
    return dict(dataset(idata, "posterior").attrs)


def layer_names(idata: Any) -> list[str]:
    """Return the layers of a posterior, in the order data flows through them."""
    return [str(name) for name in dataset(idata, "layers")["layer"].values]
