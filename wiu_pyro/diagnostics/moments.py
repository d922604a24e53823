"""One layer's moments as plain arrays: weights, biases and other parameters pooled, each beside its own prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.errors import SchemaError

__all__ = ["LayerMoments", "layer_moments", "layers_with_moments", "refuse_improper", "squeeze_chain"]


@dataclass(frozen=True)
class LayerMoments:
    """The moments of all weights of a layer, in one row per chain.

    Attributes
    ----------
    mean, sd : ndarray, shape (chain, num_weights), float64
        Posterior mean and marginal standard deviation, in units of the weight; sd is 0 for a weight held at its point
        estimate, of which no uncertainty is known.
    sd_conditional : ndarray, shape (chain, num_weights), or None
        Standard deviation given all other weights; None where the file has none (moments estimated from draws).
    prior_sd, prior_mean : ndarray, shape (num_weights,)
    factorised : bool
        True where the posterior factorises over the layer's weights, so that `sd_conditional` equals `sd`.
    exact : bool
        False where the moments were estimated from draws.
    """

    mean: np.ndarray
    sd: np.ndarray
    sd_conditional: np.ndarray | None
    prior_sd: np.ndarray
    prior_mean: np.ndarray
    factorised: bool
    exact: bool

    @property
    def uncertain(self) -> np.ndarray:
        """Which weights have a posterior, not a point estimate alone, (chain, num_weights)."""
        return self.sd > 0

    def over_uncertain(self, summary: Callable[[np.ndarray], float], values: np.ndarray) -> np.ndarray:
        """Summarise values (chain, num_weights) over the uncertain weights of each chain; NaN where there is none."""
        rows = [row if own.all() else row[own] for row, own in zip(values, self.uncertain, strict=True)]
        return np.array([summary(row) if row.size else np.nan for row in rows])


def layers_with_moments(idata: Any) -> list[str]:
    """Return the layers whose moments the file holds, in the order data flows through them.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    list of str

    Raises
    ------
    SchemaError
        If there is none.
    """
    held = schema.groups(idata)
    names = [name for name in schema.layer_names(idata) if schema.moments_group(name) in held]
    if not names:
        raise SchemaError(
            "Moments of at least one layer (group 'moments_<name>') are needed, but the file holds: "
            f"{', '.join(held)}. Export the posterior again with wiu_pyro.to_inference_data."
        )
    return names


def refuse_improper(idata: Any) -> None:
    """Raise where weights are held against an improper prior, relative to whose sd nothing can be said.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Raises
    ------
    SchemaError
        Naming the first such layer.
    """
    for name in layers_with_moments(idata):
        data = schema.dataset(idata, schema.moments_group(name))
        for prefix in schema.moment_parameters(data).values():
            if prefix + "prior_sd" in data and bool(data[prefix + "prior_sd"].isnull().all()):
                raise SchemaError(
                    f"A prior with an sd is needed, to which sds are compared, but that of layer '{name}' is improper. "
                    "Look at its signal-to-noise in wiu_pyro.diagnostics.layer_uncertainty, or at the posterior of "
                    "another guide."
                )


def layer_moments(idata: Any, layer: str) -> LayerMoments:
    """Return the moments of one layer, its parameters pooled in the order of the file.

    Parameters
    ----------
    idata : InferenceData or DataTree
    layer : str

    Returns
    -------
    LayerMoments

    Raises
    ------
    SchemaError
        If the file holds no moments of that layer, or a variable is missing.
    """
    data = schema.dataset(idata, schema.moments_group(layer))
    prefixes = list(schema.moment_parameters(data).values())
    missing = [p + name for p in prefixes for name in ("sd", "prior_sd", "prior_mean") if p + name not in data]
    if missing or not prefixes:
        raise SchemaError(
            f"Group '{schema.moments_group(layer)}' needs {', '.join(missing) or 'mean'}, but holds "
            f"{', '.join(map(str, data.data_vars))}. Export the posterior again with wiu_pyro.to_inference_data."
        )
    conditional = all(prefix + "sd_conditional" in data for prefix in prefixes)
    return LayerMoments(
        mean=_pooled(data, prefixes, "mean"),
        sd=_held(_pooled(data, prefixes, "sd")),
        sd_conditional=_held(_pooled(data, prefixes, "sd_conditional")) if conditional else None,
        prior_sd=_pooled_prior(data, prefixes, "prior_sd"),
        prior_mean=_pooled_prior(data, prefixes, "prior_mean"),
        factorised=bool(data.attrs.get("factorised", 0)),
        exact=data.attrs.get("moments") == "exact",
    )


def _held(sd: np.ndarray) -> np.ndarray:
    """Return sds with the mark of held weights, 0, also where a file without any posterior has NaN."""
    return np.where(np.isnan(sd), 0.0, sd)


def _pooled(data: xr.Dataset, prefixes: list[str], name: str) -> np.ndarray:
    parts = [data[prefix + name].transpose("chain", ...).values for prefix in prefixes]
    # each (chain, *weight dims) -> (chain, num_weights)
    return np.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1).astype(np.float64)


def _pooled_prior(data: xr.Dataset, prefixes: list[str], name: str) -> np.ndarray:
    parts = []
    for prefix in prefixes:
        shape = data[prefix + "mean"].shape[1:]
        parts.append(np.broadcast_to(data[prefix + name].values, shape).ravel())
    return np.concatenate(parts).astype(np.float64)


def squeeze_chain(data: xr.Dataset) -> xr.Dataset:
    """Drop the dim `chain` where there is only one, so that a table of one fit has one row a layer."""
    return data.isel(chain=0, drop=True) if data.sizes.get("chain") == 1 else data
