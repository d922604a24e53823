"""The check of an InferenceData against the data contract: the first breach becomes an error that says what to do."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro.errors import SchemaError
from wiu_pyro.schema import layer_checks
from wiu_pyro.schema.names import LAYER_PREFIX, MOMENTS_PREFIX, REQUIRED_ATTRS, SCHEMA_VERSION, dataset, groups

__all__ = ["validate"]

EXPORT_AGAIN = "Export the posterior again with wiu_pyro.to_inference_data."
ARVIZ_GROUPS = frozenset({"log_likelihood", "observed_data", "constant_data"})
# ArviZ 1.x handles a group with one of these words in its own way; a layer's prefix keeps it apart.
ARVIZ_WORDS = ("data", "predictions", "log_likelihood", "warmup")
CONVERGED = ("yes", "no", "not assessed")

# group -> variable -> dims; a group that is there holds at least these.
REQUIRED_VARIABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "posterior": {"deviation_rms": ("chain", "draw", "layer")},
    "layers": {
        "module_type": ("layer",),
        "depth": ("layer",),
        "num_weights": ("layer",),
        "structure": ("layer",),
        "prior": ("layer",),
        "curvature": ("layer",),
        "kl": ("chain", "layer"),
    },
    "sample_stats": {"log_prior": ("chain", "draw"), "log_q": ("chain", "draw")},
    "training": {"loss": ("chain", "epoch")},
    "log_likelihood": {"obs": ("chain", "draw", "obs_id")},
}


def validate(idata: Any, *, values: bool = True) -> None:
    """Check an InferenceData or DataTree against the data contract.

    Parameters
    ----------
    idata : InferenceData or DataTree
        What `wiu_pyro.to_inference_data`, `wiu_pyro.load` or `wiu_pyro.concat` returned.
    values : bool
        Whether the moments and draws of the layers are looked through; names, dims, dtypes and attributes always are.

    Raises
    ------
    SchemaError
        Naming the first thing that does not follow the contract, and what to do about it.

    Examples
    --------
    >>> import xarray as xr
    >>> from wiu_pyro.export.container import build
    >>> validate(build({"prior": xr.Dataset({"scale": 1.0})}))
    Traceback (most recent call last):
        ...
    wiu_pyro.errors.SchemaError: The group 'posterior' is needed; got the groups: prior. Export the posterior again \
with wiu_pyro.to_inference_data.
    """
    content = {name: dataset(idata, name) for name in groups(idata)}
    _check_head(content)
    _check_group_names(content)
    for name, data in content.items():
        _check_group(name, data)
    names = [str(name) for name in content["layers"]["layer"].values]
    _check_layers(content, names)
    for layer, count in zip(names, content["layers"]["num_weights"].values, strict=True):
        draws, moments = content[LAYER_PREFIX + layer], content[MOMENTS_PREFIX + layer]
        layer_checks.check_moments(layer, moments, int(count), values=values)
        layer_checks.check_draws(layer, draws, moments, values=values)
        _check_same_draws(LAYER_PREFIX + layer, draws, content["posterior"])


def _check_head(content: Mapping[str, xr.Dataset]) -> None:
    for needed in ("posterior", "layers"):
        if needed not in content:
            held = ", ".join(content) or "none"
            raise SchemaError(f"The group '{needed}' is needed; got the groups: {held}. {EXPORT_AGAIN}")
    attrs = content["posterior"].attrs
    if "wiu_schema" not in attrs:
        held = ", ".join(map(str, attrs)) or "none"
        raise SchemaError(
            "Group 'posterior' needs the attribute 'wiu_schema', which every file of wiu_pyro has; got the "
            f"attributes: {held}. This was not written by wiu_pyro.save. {EXPORT_AGAIN}"
        )
    if str(attrs["wiu_schema"]) != SCHEMA_VERSION:
        raise SchemaError(
            f"Schema version {SCHEMA_VERSION} is needed, but this has version {attrs['wiu_schema']}. "
            f"Read it with the wiu_pyro that wrote it ({attrs.get('wiu_pyro_version', 'unknown')}), or export it again."
        )
    for name in REQUIRED_ATTRS:
        if name not in attrs:
            raise SchemaError(
                f"Group 'posterior' needs the attribute '{name}'; got: {', '.join(map(str, attrs))}. {EXPORT_AGAIN}"
            )
    if attrs["converged"] not in CONVERGED:
        raise SchemaError(
            f"The attribute 'converged' must be one of {', '.join(map(repr, CONVERGED))}, but it is "
            f"{attrs['converged']!r}. {EXPORT_AGAIN}"
        )


def _check_group_names(content: Mapping[str, xr.Dataset]) -> None:
    for name in content:
        own = name.startswith((LAYER_PREFIX, MOMENTS_PREFIX)) or name in ARVIZ_GROUPS
        word = next((word for word in ARVIZ_WORDS if word in name), None)
        if word and not own:
            raise SchemaError(
                f"ArviZ 1.x treats a group with '{word}' in its name in its own way, but one is named {name!r}. "
                f"Rename it to a name without {', '.join(map(repr, ARVIZ_WORDS))}."
            )


def _check_group(name: str, data: xr.Dataset) -> None:
    required = REQUIRED_VARIABLES.get(name, {})
    if name.startswith("predictive_"):
        width = "class" if "class" in data.dims else "output"
        required = {"mean": ("chain", "obs_id", width)}
    if name == "observed_data":
        required = {"obs": ("obs_id", "output") if "output" in data.dims else ("obs_id",)}
    for variable, dims in required.items():
        if variable not in data:
            held = ", ".join(map(str, data.data_vars)) or "none"
            raise SchemaError(
                f"Group '{name}' needs the variable '{variable}'; got the variables: {held}. {EXPORT_AGAIN}"
            )
        if data[variable].dims != dims:
            raise SchemaError(
                f"Variable '{variable}' of group '{name}' needs the dims {dims}, but has {data[variable].dims}. "
                f"{EXPORT_AGAIN}"
            )
    loose = sorted(str(coord) for coord in set(data.coords) - set(data.dims))
    if loose:
        raise SchemaError(
            f"Only index coordinates may stand in group '{name}', since others make az.summary of ArviZ 1.x fail, but "
            f"{', '.join(map(repr, loose))} is one that indexes no dim. Remove it with .drop_vars({loose})."
        )
    _check_attrs(name, data.attrs)
    for key, array in data.variables.items():
        _check_attrs(f"{name}.{key}", array.attrs)
    if name == "sample_stats":
        _check_sample_stats(data)


def _check_sample_stats(data: xr.Dataset) -> None:
    for variable in ("log_prior", "log_q"):
        if data[variable].dtype != np.float64:
            raise SchemaError(
                f"'{variable}' of group 'sample_stats' needs float64, since it sums over all weights, but has "
                f"{data[variable].dtype}. {EXPORT_AGAIN}"
            )
    if np.isnan(data["log_prior"].values).any():
        raise SchemaError(
            "'log_prior' of group 'sample_stats' must not be NaN, but is for "
            f"{int(np.isnan(data['log_prior'].values).sum())} draws. {EXPORT_AGAIN}"
        )


def _check_attrs(where: str, attrs: Mapping[Any, Any]) -> None:
    for key, value in attrs.items():
        items = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
        plain = all(isinstance(item, str | numbers.Real | np.generic) and not isinstance(item, bool) for item in items)
        if not plain or len({isinstance(item, str) for item in items}) > 1:
            raise SchemaError(
                f"netCDF keeps texts, numbers and lists of one of them, but the attribute '{key}' of '{where}' is "
                f"{value!r} ({type(value).__name__}). Store it as text, or a truth value as 0 or 1."
            )


def _check_layers(content: Mapping[str, xr.Dataset], names: list[str]) -> None:
    posterior = content["posterior"]
    if len(set(names)) != len(names) or not names:
        raise SchemaError(f"At least one layer and unique layer names are needed, but they are {names}. {EXPORT_AGAIN}")
    if [str(name) for name in posterior["layer"].values] != names:
        raise SchemaError(
            f"The layers of group 'posterior' must be those of group 'layers', {names}, but are "
            f"{[str(name) for name in posterior['layer'].values]}. {EXPORT_AGAIN}"
        )
    for prefix in (LAYER_PREFIX, MOMENTS_PREFIX):
        needed = {prefix + name for name in names}
        held = {group for group in content if group.startswith(prefix)}
        if needed != held:
            odd = ", ".join(sorted(needed ^ held))
            raise SchemaError(
                f"Each layer of group 'layers' needs its own group '{prefix}<name>' and no other may be there, but "
                f"these are missing or extra: {odd}. {EXPORT_AGAIN}"
            )
    deviation = posterior["deviation_rms"]
    unknown = "reason" in deviation.attrs and bool(np.isnan(deviation.values).all())
    if not unknown and not np.isfinite(deviation.values).all():
        raise SchemaError(f"'deviation_rms' of group 'posterior' must be finite, but is not. {EXPORT_AGAIN}")
    for name in ("log_likelihood", "sample_stats"):
        if name in content:
            _check_same_draws(name, content[name], posterior)


def _check_same_draws(group: str, data: xr.Dataset, posterior: xr.Dataset) -> None:
    for dim in ("chain", "draw"):
        if not np.array_equal(data[dim].values, posterior[dim].values):
            raise SchemaError(
                f"Group '{group}' needs the same {dim}s as group 'posterior' ({posterior.sizes[dim]}), but has "
                f"{data.sizes[dim]}, or others. {EXPORT_AGAIN}"
            )
