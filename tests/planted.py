"""A posterior of given moments and nothing else: the smallest file that the diagnostics over weights take.

`planted({"fc1": PlantedLayer(sd=...), ...})` builds it; every array has the chain first. See also `tests.synthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro.export.container import build

__all__ = ["PlantedLayer", "planted", "two_way"]

ENDS = {1: ("out",), 2: ("out", "in"), 4: ("out", "in", "kh", "kw")}


@dataclass(frozen=True)
class PlantedLayer:
    """One layer: sd of its weight, (chain, *shape), and what else is not the default."""

    sd: np.ndarray
    mean: np.ndarray | None = None
    bias_sd: np.ndarray | None = None
    conditional: np.ndarray | None = None
    prior_sd: Any = 1.0
    structure: str = "mean-field"
    kl: np.ndarray | None = None


def planted(layers: dict[str, PlantedLayer], *, factorised: bool = True, **attrs: Any) -> Any:
    """Build the posterior; by default its means are 0.3 and its priors N(0, 1)."""
    chains = len(next(iter(layers.values())).sd)
    groups = {f"moments_{name}": _moments(name, layer, factorised=factorised) for name, layer in layers.items()}
    kl = np.stack([_kl(layer) for layer in layers.values()], axis=1)  # (chain, layer)
    about = {
        "module_type": ("layer", ["Linear" if layer.sd.ndim == 3 else "Conv2d" for layer in layers.values()]),
        "num_weights": ("layer", [_size(layer) for layer in layers.values()]),
        "structure": ("layer", [layer.structure for layer in layers.values()]),
        "kl": (("chain", "layer"), kl),
        "kl_total": ("chain", kl.sum(axis=1)),
    }
    names = {"layer": list(layers)}
    posterior = xr.Dataset({"deviation_rms": (("chain", "draw", "layer"), np.ones((chains, 2, len(layers)), "f4"))})
    said = {"guide": "AutoMeanField", "approximation": "mean-field", "converged": "yes", "seed": 0} | attrs
    head = {"posterior": posterior.assign_coords(names).assign_attrs(said), "layers": xr.Dataset(about, coords=names)}
    return build(head | groups)


def two_way(rng: np.random.Generator, shape: tuple[int, int, int], scales: tuple[float, float, float]) -> np.ndarray:
    """Return (chain, out, in) Normal effects of outputs, inputs and entries, of the given scales."""
    chains, outputs, inputs = shape
    parts = [(chains, outputs, 1), (chains, 1, inputs), shape]
    return sum(scale * rng.normal(size=size) for scale, size in zip(scales, parts, strict=True))


def _size(layer: PlantedLayer) -> int:
    return layer.sd[0].size + (0 if layer.bias_sd is None else layer.bias_sd[0].size)


def _kl(layer: PlantedLayer) -> np.ndarray:
    if layer.kl is not None:
        return layer.kl
    mean = np.full_like(layer.sd, 0.3) if layer.mean is None else layer.mean
    ratio = (np.maximum(layer.sd, 1e-30) / layer.prior_sd) ** 2
    each = 0.5 * ((mean / layer.prior_sd) ** 2 + ratio - 1 - np.log(ratio))
    total = each.reshape(len(each), -1).sum(axis=1)
    if layer.bias_sd is not None:
        total = total + 0.5 * (layer.bias_sd**2 - 1 - 2 * np.log(layer.bias_sd)).sum(axis=1)
    return total


def _moments(name: str, layer: PlantedLayer, *, factorised: bool) -> xr.Dataset:
    dims = ("chain", *(f"{name}_{end}" for end in ENDS[layer.sd.ndim - 1]))
    mean = np.full_like(layer.sd, 0.3) if layer.mean is None else layer.mean
    conditional = layer.sd if layer.conditional is None else layer.conditional
    arrays = {"mean": mean, "sd": layer.sd, "sd_conditional": conditional}
    variables: dict[str, Any] = {key: (dims, np.asarray(values, "f4")) for key, values in arrays.items()}
    prior = np.asarray(layer.prior_sd, "f4")
    variables |= {"prior_sd": (dims[1:] if prior.ndim else (), prior), "prior_mean": ((), np.float32(0))}
    if layer.bias_sd is not None:
        bias = {"mean": np.zeros_like(layer.bias_sd), "sd": layer.bias_sd, "sd_conditional": layer.bias_sd}
        variables |= {f"bias_{key}": (dims[:2], np.asarray(values, "f4")) for key, values in bias.items()}
        variables |= {"bias_prior_sd": ((), np.float32(1)), "bias_prior_mean": ((), np.float32(0))}
    data = xr.Dataset(variables, attrs={"moments": "exact", "factorised": int(factorised)})
    return data.assign_coords({dim: np.arange(size) for dim, size in data.sizes.items()})
