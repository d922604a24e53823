"""The groups of the layers: draws and moments of each, the table `layers`, and `posterior` with `sample_stats`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from wiu_pyro.export.draws import ChainDraws, SiteMoments
from wiu_pyro.export.layout import Parameter
from wiu_pyro.export.sources import Chain, Source
from wiu_pyro.nn import Layer, describe_prior, is_improper

__all__ = [
    "draws_group",
    "is_factorised",
    "is_uncertain",
    "layers_group",
    "moments_group_of",
    "posterior_group",
    "sample_stats_group",
    "with_coords",
]

Moments = list[Mapping[str, SiteMoments]]  # one mapping of site to moments per chain
IMPROPER = "the prior is improper: it has no sd, and nothing can be said relative to it"


def with_coords(data: xr.Dataset) -> xr.Dataset:
    """Return the dataset with an integer coordinate 0, 1, ... along each dim that has none."""
    missing = {dim: np.arange(size) for dim, size in data.sizes.items() if dim not in data.coords}
    return data.assign_coords(missing)


def draws_group(parameters: list[Parameter], chains: list[ChainDraws]) -> xr.Dataset:
    """Return group `layer_<name>`: the kept draws of each parameter, (chain, draw, ...), float32."""
    variables, coords = {}, {}
    for parameter in parameters:
        kept = [chain.kept[parameter.site] for chain in chains]
        values = kept[0][None] if len(kept) == 1 else np.stack(kept)
        attrs = {}
        if parameter.subset is not None:
            attrs["shape"] = list(parameter.shape)
            coords[parameter.draw_dims[0]] = parameter.subset
        variables[parameter.name] = (("chain", "draw", *parameter.draw_dims), values, attrs)
    return with_coords(xr.Dataset(variables, coords=coords))


def moments_group_of(
    parameters: list[Parameter], moments: Moments, priors: Mapping[str, SiteMoments], *, exact: bool, factorised: bool
) -> xr.Dataset:
    """Return group `moments_<name>`: posterior moments of all weights, (chain, ...), and those of the prior."""
    # a layer at its point estimate is called factorised where the others are
    variables = {}
    for parameter in parameters:
        dims, parts = ("chain", *parameter.dims), [chain[parameter.site] for chain in moments]
        variables[f"{parameter.prefix}mean"] = (dims, _stack([part.mean for part in parts]))
        variables[f"{parameter.prefix}sd"] = (dims, _stack([part.sd for part in parts]))
        if all(part.sd_conditional is not None for part in parts):
            variables[f"{parameter.prefix}sd_conditional"] = (dims, _stack([part.sd_conditional for part in parts]))
        prior = priors[parameter.site]
        unknown = {"reason": IMPROPER} if bool(prior.sd.isnan().all()) else {}
        variables[f"{parameter.prefix}prior_sd"] = (*_prior(prior.sd, parameter), unknown)
        variables[f"{parameter.prefix}prior_mean"] = _prior(prior.mean, parameter)
    sites = [parameter.site for parameter in parameters]
    known = [is_factorised(chain, sites) for chain in moments if is_uncertain(chain, sites)]
    attrs = {
        "moments": "exact" if exact else "estimated",
        "factorised": int(all(known) if known else factorised),
    }
    return with_coords(xr.Dataset(variables, attrs=attrs))


def is_factorised(moments: Mapping[str, SiteMoments], sites: list[str]) -> bool:
    """Return whether the conditional sd of all weights at `sites` is known and equals the marginal one."""
    found = (moments[site] for site in sites)
    return all(part.sd_conditional is not None and torch.equal(part.sd_conditional, part.sd) for part in found)


def is_uncertain(moments: Mapping[str, SiteMoments], sites: list[str]) -> bool:
    """Return whether any weight at `sites` has a posterior, not a point estimate alone."""
    return any(bool((moments[site].sd > 0).any()) for site in sites)


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().float().cpu().numpy()


def _stack(values: list[torch.Tensor]) -> np.ndarray:
    arrays = [_array(value) for value in values]
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _prior(value: torch.Tensor, parameter: Parameter) -> tuple[tuple[str, ...], np.ndarray]:
    array = _array(value)
    if array.size and (np.array_equal(array, np.full_like(array, array.flat[0]), equal_nan=True)):
        return (), array.flat[0]
    return parameter.dims, array


def posterior_group(source: Source, chains: list[ChainDraws]) -> xr.Dataset:
    """Return group `posterior`: `deviation_rms` by layer and the scalar sites; `az.summary` reads this one."""
    deviation = np.stack([chain.deviation_rms for chain in chains])
    improper = [site for site in source.structure.parameter_sites if is_improper(source.structure.priors[site])]
    attrs = {"relative_to": f"the rms weight, not the prior's sd: {IMPROPER}"} if improper else {}
    variables = {"deviation_rms": (("chain", "draw", "layer"), deviation, attrs)}
    for site in source.structure.other_sites:
        variables[site] = (("chain", "draw"), np.stack([chain.scalars[site] for chain in chains]))
    return with_coords(xr.Dataset(variables, coords={"layer": [layer.name for layer in source.structure.layers]}))


def sample_stats_group(source: Source, chains: list[ChainDraws]) -> xr.Dataset:
    """Return group `sample_stats`: log densities of the draws under the prior and the posterior, float64."""
    dims = ("chain", "draw")
    reason = source.chains[0].log_q_reason
    variables = {
        "log_prior": (dims, np.stack([chain.log_prior for chain in chains]), {"units": "nats"}),
        "log_q": (
            dims,
            np.stack([chain.log_q for chain in chains]),
            {"units": "nats"} | ({"reason": reason} if reason else {}),
        ),
    }
    return with_coords(xr.Dataset(variables))


def layers_group(source: Source, chains: list[ChainDraws], *, structure: str, curvature: str) -> xr.Dataset:
    """Return group `layers`: what each layer is, and its KL from the prior in nats, (chain, layer).

    Parameters
    ----------
    source : Source
    chains : list of ChainDraws
    structure, curvature : str
        Of the whole posterior; a layer's own structure comes from the closed form, where there is one.

    Returns
    -------
    Dataset
    """
    layers, closed = source.structure.layers, source.chains[0].closed
    structures = [
        structure if closed is None else closed.layer_structure.get(layer.name, structure) for layer in layers
    ]
    variables = {
        "module_type": ("layer", [layer.module_type for layer in layers]),
        "depth": ("layer", [layer.depth for layer in layers]),
        "num_weights": ("layer", [layer.num_weights for layer in layers]),
        "structure": ("layer", structures),
        "prior": ("layer", [_prior_text(layer, source) for layer in layers]),
        "curvature": ("layer", ["none" if kind == "point" else curvature for kind in structures]),
    }
    data = xr.Dataset(variables | _kl(source, chains), coords={"layer": [layer.name for layer in layers]})
    return with_coords(data)


def _prior_text(layer: Layer, source: Source) -> str:
    texts = {name: describe_prior(source.structure.priors[site]) for name, site in layer.sites.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _kl(source: Source, chains: list[ChainDraws]) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Return `kl`, `kl_total`, `kl_between_layers` and, where they come by draws, their standard errors."""
    names = [layer.name for layer in source.structure.layers]
    kl, kl_se = (np.full((len(chains), len(names)), np.nan) for _ in range(2))
    total, total_se = (np.full(len(chains), np.nan) for _ in range(2))
    for number, (chain, drawn) in enumerate(zip(source.chains, chains, strict=True)):
        if chain.closed is None:
            total[number], total_se[number] = _mean_and_error(drawn.log_q - drawn.log_prior)
            continue
        kl[number] = [chain.closed.layer_kl[name] for name in names]
        kl_se[number] = [chain.closed.layer_kl_se.get(name, math.nan) for name in names]
        total[number] = chain.closed.kl_total
    point = [_is_point(source.chains, name) for name in names]
    reason = {} if np.isfinite(kl).all() else {"kl_reason": _kl_reason(source.chains[0], kl, np.array(point))}
    note = "" if source.chains[0].closed is None else source.chains[0].closed.kl_note
    reason |= {"kl_note": note} if note else {}
    variables = {
        "kl": (("chain", "layer"), kl, {"units": "nats"} | reason),
        "kl_total": (("chain",), total, {"units": "nats"}),
        "kl_between_layers": (("chain",), total - kl[:, ~np.array(point)].sum(axis=1), {"units": "nats"}),
        "kl_se": (("chain", "layer"), kl_se, {"units": "nats"}),
        "kl_total_se": (("chain",), total_se, {"units": "nats"}),
    }
    by_draws = {"kl_se": np.isfinite(kl_se).any(), "kl_total_se": np.isfinite(total_se).any()}
    return {name: values for name, values in variables.items() if by_draws.get(name, True)}


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(values).all():
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))


def _is_point(chains: Sequence[Chain], layer: str) -> bool:
    return all(chain.closed is not None and chain.closed.layer_structure[layer] == "point" for chain in chains)


def _kl_reason(chain: Chain, kl: np.ndarray, point: np.ndarray) -> str:
    reasons = ["a layer at its point estimate has no density"] if point.any() else []
    if not np.isfinite(kl[:, ~point]).all():
        reasons.append(chain.log_q_reason or "the marginal of one layer has no density in closed form")
    return "; ".join(reasons)
