"""A posterior that follows the data contract, built with NumPy alone, whose every answer is known.

`synthetic(...)` returns the file's content (`.idata`) and the Gaussian it was built from (`.truth`), so that a test
can compare a diagnostic with the dense algebra instead of with itself. Keywords are the fields of `Options`::

    from tests.synthetic import synthetic
    idata = synthetic(factorised=False, num_chains=2).idata
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from tests.synthetic_predictions import prediction_groups, with_coords
from wiu_pyro import schema
from wiu_pyro.export.container import build

__all__ = ["LayerSpec", "LayerTruth", "Options", "Synthetic", "hold", "synthetic"]


@dataclass(frozen=True)
class LayerSpec:
    """One layer: the shape of its weight, whether it has a bias, and about how strongly data determine it."""

    name: str
    shape: tuple[int, ...]
    contraction: float
    bias: bool = True

    @property
    def num_weights(self) -> int:
        """Weights and biases together."""
        return int(np.prod(self.shape)) + (self.shape[0] if self.bias else 0)


DEFAULT_LAYERS = (
    LayerSpec("fc1", (16, 64), 0.2),
    LayerSpec("fc2", (12, 16), 0.5),
    LayerSpec("out", (10, 12), 0.9),
)
CONV_LAYERS = (
    LayerSpec("features.0", (6, 1, 3, 3), 0.7),
    LayerSpec("classifier", (10, 54), 0.4),
)


@dataclass(frozen=True)
class Options:
    """What the synthetic posterior looks like; `data_seed` alone decides images and labels."""

    layers: tuple[LayerSpec, ...] = DEFAULT_LAYERS
    seed: int = 0
    data_seed: int = 7
    num_draws: int = 50
    num_chains: int = 1
    factorised: bool = True
    estimated: bool = False
    prior_varies: bool = False
    dead_inputs: tuple[int, ...] = (0, 32, 39)
    max_weights_per_layer: int = 2_000
    kl_between_layers: float = 0.0
    likelihood: str = "categorical"
    num_obs: int = 120
    num_classes: int = 10
    image_shape: tuple[int, int, int] = (1, 8, 8)
    images: bool = True
    point: bool = True
    noise: float = 0.8
    converged: str = "yes"
    approximation: str = ""
    num_epochs: int = 20


@dataclass(frozen=True)
class LayerTruth:
    """The Gaussian of one layer, weights before biases: (chain, num_weights); covariance (chain, P, P) or None."""

    spec: LayerSpec
    mean: np.ndarray
    sd: np.ndarray
    sd_conditional: np.ndarray
    prior_sd: np.ndarray
    kl: np.ndarray
    covariance: np.ndarray | None


@dataclass(frozen=True)
class Synthetic:
    """An InferenceData (or DataTree) and what it was built from."""

    idata: Any
    options: Options
    truth: dict[str, LayerTruth] = field(default_factory=dict)


def synthetic(options: Options | None = None, **overrides: Any) -> Synthetic:
    """Build a posterior by `options`, with single fields overridden by keyword; it is the caller's own to change."""
    chosen = replace(options or Options(), **overrides)
    groups, truth = _content(chosen)
    return Synthetic(build({name: data.copy(deep=True) for name, data in groups.items()}), chosen, dict(truth))


@lru_cache(maxsize=12)
def _content(chosen: Options) -> tuple[dict[str, xr.Dataset], dict[str, LayerTruth]]:
    """Return groups and truth; kept, as many tests ask for the same and the dense algebra takes its time."""
    rng = np.random.default_rng(chosen.seed)
    truth = {spec.name: _layer_truth(spec, chosen, rng, first=i == 0) for i, spec in enumerate(chosen.layers)}
    groups: dict[str, xr.Dataset] = {}
    deviations = []
    for layer in truth.values():
        draws = _draws(layer, chosen, rng)
        deviations.append(_deviation_rms(layer, draws))
        groups[f"layer_{layer.spec.name}"] = _layer_group(layer, draws, chosen, rng)
        groups[f"moments_{layer.spec.name}"] = _moments_group(layer, draws, chosen)
    head = {"posterior": _posterior(chosen, np.stack(deviations, axis=-1))}
    groups = head | groups | {"layers": _layers(chosen, truth), "training": _training(chosen, truth)}
    for values in (value for layer in truth.values() for value in vars(layer).values()):
        if isinstance(values, np.ndarray):
            values.flags.writeable = False  # all who ask share it
    return groups | prediction_groups(chosen, rng), truth


def hold(idata: Any, layer: str, *, every: int = 1) -> Any:
    """Return a posterior with the weights of one layer held at their means: all of them, or every so manieth."""
    named = {name: schema.dataset(idata, name).copy(deep=True) for name in schema.groups(idata)}
    moments, draws, layers = named[f"moments_{layer}"], named[f"layer_{layer}"], named["layers"]
    for parameter, prefix in schema.moment_parameters(moments).items():
        for name in (f"{prefix}sd", f"{prefix}sd_conditional"):
            if name in moments:
                moments[name].values.reshape(moments.sizes["chain"], -1)[:, ::every] = 0
        mean = moments[f"{prefix}mean"].values.reshape(moments.sizes["chain"], -1)
        values, where = draws[parameter], np.arange(mean.shape[1])
        if "shape" in values.attrs:
            where = values[values.dims[-1]].values
        flat = values.values.reshape(*values.shape[:2], -1)
        held = where % every == 0
        flat[:, :, held] = mean[:, None, where[held]]
    if every == 1:
        layers["structure"] = layers["structure"].astype(object).where(layers["layer"] != layer, "point").astype(str)
        layers["curvature"] = layers["curvature"].astype(object).where(layers["layer"] != layer, "none").astype(str)
        lost = layers["kl"].sel(layer=layer).drop_vars("layer")
        layers["kl"] = layers["kl"].where(layers["layer"] != layer)
        layers["kl"].attrs["kl_reason"] = "a layer at its point estimate has no density"
        layers["kl_total"] = layers["kl_total"] - lost
        named["posterior"]["deviation_rms"].loc[{"layer": layer}] = 0
    return build(named)


def _layer_truth(spec: LayerSpec, options: Options, rng: np.random.Generator, *, first: bool) -> LayerTruth:
    fan_in = int(np.prod(spec.shape[1:]))
    weight_sd = np.full(spec.shape, np.sqrt(2 / fan_in))
    if options.prior_varies:
        weight_sd = weight_sd * np.linspace(0.5, 2.0, weight_sd.size).reshape(spec.shape)
    seen = np.ones(spec.shape)
    if first and options.dead_inputs and fan_in > max(options.dead_inputs):
        seen.reshape(spec.shape[0], fan_in)[:, list(options.dead_inputs)] = 0
    num_bias = spec.num_weights - weight_sd.size
    prior_sd = np.concatenate([weight_sd.ravel(), np.ones(num_bias)])
    alive = np.concatenate([seen.ravel(), np.ones(num_bias)])
    chains = [_gaussian(spec, prior_sd, alive, rng, factorised=options.factorised) for _ in range(options.num_chains)]
    mean, covariance, sd, conditional, kl = (list(column) for column in zip(*chains, strict=True))
    return LayerTruth(
        spec,
        mean=np.stack(mean),
        sd=np.stack(sd),
        sd_conditional=np.stack(conditional),
        prior_sd=prior_sd,
        kl=np.array(kl),
        covariance=None if options.factorised else np.stack(covariance),
    )


def _gaussian(
    spec: LayerSpec, prior_sd: np.ndarray, alive: np.ndarray, rng: np.random.Generator, *, factorised: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray, float]:
    num = prior_sd.size
    mean = alive * prior_sd * rng.normal(size=num) * (0.3 + spec.contraction)
    if factorised:
        contraction = alive * np.clip(spec.contraction + 0.08 * rng.normal(size=num), 0.01, 0.995)
        sd = prior_sd * np.sqrt(1 - contraction)
        ratio = (sd / prior_sd) ** 2
        kl = 0.5 * np.sum(ratio + (mean / prior_sd) ** 2 - 1 - np.log(ratio))
        return mean, None, sd, sd, float(kl)
    rank = max(1, round(spec.contraction * num))
    basis = rng.normal(size=(num, rank)) * (alive * 3)[:, None]
    precision = (np.eye(num) + basis @ basis.T / rank) / np.outer(prior_sd, prior_sd)  # (P, P)
    covariance = np.linalg.inv(precision)
    logdet = np.linalg.slogdet(precision)[1] + 2 * np.log(prior_sd).sum()
    kl = 0.5 * (np.sum(np.diag(covariance) / prior_sd**2) + np.sum((mean / prior_sd) ** 2) - num + logdet)
    return mean, covariance, np.sqrt(np.diag(covariance)), 1 / np.sqrt(np.diag(precision)), float(kl)


def _draws(layer: LayerTruth, options: Options, rng: np.random.Generator) -> np.ndarray:
    shape = (options.num_chains, options.num_draws, layer.spec.num_weights)
    white = rng.normal(size=shape)
    if layer.covariance is None:
        return layer.mean[:, None] + layer.sd[:, None] * white
    return layer.mean[:, None] + np.einsum("cij,cdj->cdi", np.linalg.cholesky(layer.covariance), white)


def _deviation_rms(layer: LayerTruth, draws: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(((draws - layer.mean[:, None]) / layer.prior_sd) ** 2, axis=-1))


def _dims(spec: LayerSpec) -> tuple[str, ...]:
    ends = ("out", "in") if len(spec.shape) == 2 else ("out", "in", "kh", "kw")
    return tuple(f"{spec.name}_{end}" for end in ends)


def _layer_group(layer: LayerTruth, draws: np.ndarray, options: Options, rng: np.random.Generator) -> xr.Dataset:
    spec, size = layer.spec, int(np.prod(layer.spec.shape))
    weights = draws[..., :size].astype(np.float32)
    coords = {}
    if size > options.max_weights_per_layer:
        index = np.sort(rng.choice(size, options.max_weights_per_layer, replace=False))
        coords[f"{spec.name}_weight"] = index
        weight = xr.DataArray(weights[..., index], dims=("chain", "draw", f"{spec.name}_weight"))
        weight.attrs["shape"] = list(spec.shape)
    else:
        weight = xr.DataArray(weights.reshape(*draws.shape[:2], *spec.shape), dims=("chain", "draw", *_dims(spec)))
    variables = {"weight": weight}
    if spec.bias:
        bias = draws[..., size:].astype(np.float32)
        variables["bias"] = xr.DataArray(bias, dims=("chain", "draw", f"{spec.name}_out"))
    return with_coords(xr.Dataset(variables, coords=coords))


def _moments_group(layer: LayerTruth, draws: np.ndarray, options: Options) -> xr.Dataset:
    spec, size = layer.spec, int(np.prod(layer.spec.shape))
    columns = {"mean": layer.mean, "sd": layer.sd, "sd_conditional": layer.sd_conditional}
    if options.estimated:
        columns = {"mean": draws.mean(axis=1), "sd": draws.std(axis=1, ddof=1)}
    dims, variables = ("chain", *_dims(spec)), {}
    for name, values in columns.items():
        exact = values.astype(np.float32)
        variables[name] = (dims, exact[:, :size].reshape(-1, *spec.shape))
        if spec.bias:
            variables[f"bias_{name}"] = (dims[:2], exact[:, size:])
    prior = layer.prior_sd[:size].astype(np.float32)
    variables["prior_sd"] = (dims[1:], prior.reshape(spec.shape)) if np.ptp(prior) else ((), prior[0])
    variables["prior_mean"] = ((), np.float32(0))
    if spec.bias:
        variables |= {"bias_prior_sd": ((), np.float32(1)), "bias_prior_mean": ((), np.float32(0))}
    attrs = {"moments": "estimated" if options.estimated else "exact", "factorised": int(options.factorised)}
    return with_coords(xr.Dataset(variables, attrs=attrs))


def _posterior(options: Options, deviations: np.ndarray) -> xr.Dataset:
    kind = "mean-field" if options.factorised else "laplace-kfac"
    laplace = not options.factorised
    change = {"yes": 0.001, "no": 0.08}.get(options.converged, float("nan"))
    attrs = {
        "wiu_schema": "1",
        "guide": "AutoKFACLaplace" if laplace else "AutoMeanField",
        "approximation": options.approximation or kind,
        "curvature": "ggn" if laplace else "none",
        "structure": "kfac" if laplace else "mean-field",
        "prior": "FanInNormal()",
        "likelihood": options.likelihood,
        "num_data": 1_000,
        "num_data_curvature": 1_000,
        "seed": options.seed,
        "temperature": 1.0,
        "converged": options.converged,
        "convergence_change": change,
        "convergence_threshold": 0.01,
        "convergence_detail": f"-ELBO changed by {change:.2%} over the last 2 of {options.num_epochs} epochs",
        "prediction_default": "linearised" if laplace else "sampled",
        "not_covered": "",
        "input_scaling": "pixel / 255",
        "model_name": "synthetic_mlp",
        "data_name": "synthetic",
        "created_at": "2024-01-01T00:00:00+00:00",
    }
    attrs |= {f"{package}_version": "0" for package in ("wiu_pyro", "torch", "pyro", "arviz")}
    data = {"deviation_rms": (("chain", "draw", "layer"), deviations.astype(np.float32))}
    return with_coords(xr.Dataset(data, coords={"layer": [spec.name for spec in options.layers]}, attrs=attrs))


def _layers(options: Options, truth: dict[str, LayerTruth]) -> xr.Dataset:
    specs, num = options.layers, len(options.layers)
    kl = np.stack([layer.kl for layer in truth.values()], axis=-1)  # (chain, layer)
    between = np.full(options.num_chains, options.kl_between_layers)
    data = {
        "module_type": ("layer", ["Linear" if len(spec.shape) == 2 else "Conv2d" for spec in specs]),
        "depth": ("layer", np.arange(num)),
        "num_weights": ("layer", [spec.num_weights for spec in specs]),
        "structure": ("layer", ["mean-field" if options.factorised else "kfac"] * num),
        "prior": ("layer", ["Normal(0, sqrt(2 / fan_in))"] * num),
        "curvature": ("layer", ["none" if options.factorised else "ggn"] * num),
        "kl": (("chain", "layer"), kl),
        "kl_total": ("chain", kl.sum(axis=-1) + between),
        "kl_between_layers": ("chain", between),
    }
    return with_coords(xr.Dataset(data, coords={"layer": [spec.name for spec in specs]}))


def _training(options: Options, truth: dict[str, LayerTruth]) -> xr.Dataset:
    """Return the losses, and figures of the layers that come from the prior's and end at the posterior's own."""
    rng, chains = np.random.default_rng([options.seed, 1]), options.num_chains
    epoch = np.arange(options.num_epochs)
    decay = {"yes": 2.5, "no": 40.0}.get(options.converged, 5.0)
    loss = 300 + 2_000 * np.exp(-epoch / decay) + rng.normal(size=(chains, epoch.size))
    variables: dict[str, Any] = {"loss": (("chain", "epoch"), loss.astype(np.float32))}
    done = (1 - np.exp(-(epoch + 1) / decay))[:, None]
    ends = {
        "kl_per_weight": [one.kl / one.mean.shape[1] for one in truth.values()],
        "contraction": [np.mean(1 - (one.sd / one.prior_sd) ** 2, axis=1) for one in truth.values()],
        "mean_to_prior": [np.sqrt(np.mean((one.mean / one.prior_sd) ** 2, axis=1)) for one in truth.values()],
    }
    figures = {name: np.stack(values, axis=-1)[:, None] * done for name, values in ends.items()}
    ratio = np.stack([np.median(one.sd / one.prior_sd, axis=1) for one in truth.values()], axis=-1)[:, None]
    figures |= {
        "sd_to_prior": 1 - (1 - ratio) * done,
        "mean_change": np.diff(figures["mean_to_prior"], axis=1, prepend=0),
    }
    for name, values in figures.items():
        variables[name] = (("chain", "epoch", "layer"), values.astype(np.float32))
    variables["tracked_data"] = (("chain", "epoch"), np.zeros_like(loss, np.float32))
    variables["full_rate_epochs"] = ("chain", np.full(chains, 0.7 * options.num_epochs, np.float32))
    attrs = {
        "tracked": "epochs",
        "tracked_structure": "mean-field",
        "tracked_curvature": "none",
        "tracked_factorised": 1,
    }
    return with_coords(xr.Dataset(variables, coords={"layer": list(truth)}, attrs=attrs))
