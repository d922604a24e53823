"""The groups over images of a synthetic posterior: predictive, log likelihood, labels, pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from tests.synthetic import Options

__all__ = ["prediction_groups", "with_coords"]


def with_coords(data: xr.Dataset) -> xr.Dataset:
    """Give every dim without one an integer coordinate."""
    return data.assign_coords({dim: np.arange(size) for dim, size in data.sizes.items() if dim not in data.coords})


def prediction_groups(options: Options, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Return the groups over images: a predictive, `log_likelihood`, `observed_data`, `constant_data`."""
    data_rng = np.random.default_rng(options.data_seed)
    if options.likelihood == "normal":
        return _regression_groups(options, rng, data_rng)
    logits = 5 * data_rng.normal(size=(options.num_obs, options.num_classes))
    labels = np.array([data_rng.choice(p.size, p=p) for p in _softmax(logits)])
    shape = (options.num_chains, options.num_draws, *logits.shape)
    probabilities = _softmax(logits + options.noise * rng.normal(size=shape))  # (chain, draw, obs_id, class)
    point = _softmax(logits + np.zeros((options.num_chains, 1, 1)))
    kind = "sampled" if options.factorised else "linearised"
    at_label = np.take_along_axis(probabilities, labels[None, None, :, None], axis=-1)[..., 0]
    groups = {
        f"predictive_{kind}": _classification(options, probabilities, point),
        "log_likelihood": _log_likelihood(np.log(at_label), kind),
        "observed_data": with_coords(xr.Dataset({"obs": ("obs_id", labels)}, attrs={"split": "test"})),
    }
    if options.images:
        groups["constant_data"] = _images(options, labels, data_rng)
    return groups


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -np.sum(probabilities * np.log(probabilities), axis=-1)


def _classification(options: Options, probabilities: np.ndarray, point: np.ndarray) -> xr.Dataset:
    mean = probabilities.mean(axis=1)
    lower, upper = np.quantile(probabilities, [0.025, 0.975], axis=1)
    total, expected = _entropy(mean), _entropy(probabilities).mean(axis=1)
    per_class, per_obs = ("chain", "obs_id", "class"), ("chain", "obs_id")
    data = {
        "mean": (per_class, mean),
        "lower": (per_class, lower),
        "upper": (per_class, upper),
        "predictive_entropy": (per_obs, total),
        "expected_entropy": (per_obs, expected),
        "mutual_information": (per_obs, total - expected),
    }
    if options.point:
        data["point_mean"] = (per_class, point)
    attrs = {"interval": 0.95, "num_samples": options.num_draws}
    small = {name: (dims, values.astype(np.float32)) for name, (dims, values) in data.items()}
    return with_coords(xr.Dataset(small, attrs=attrs))


def _log_likelihood(values: np.ndarray, kind: str) -> xr.Dataset:
    data = {"obs": (("chain", "draw", "obs_id"), values.astype(np.float32))}
    return with_coords(xr.Dataset(data, attrs={"predictive": kind}))


def _regression_groups(
    options: Options, rng: np.random.Generator, data_rng: np.random.Generator
) -> dict[str, xr.Dataset]:
    centre = data_rng.normal(size=(options.num_obs, 1))
    obs = centre[:, 0] + 0.5 * data_rng.normal(size=options.num_obs)
    draws = centre + 0.2 * rng.normal(size=(options.num_chains, options.num_draws, options.num_obs, 1))
    mean, functional = draws.mean(axis=1), draws.var(axis=1)
    spread = np.sqrt(functional + 0.25)
    dims = ("chain", "obs_id", "output")
    columns = {"mean": mean, "lower": mean - 1.96 * spread, "upper": mean + 1.96 * spread, "variance": spread**2}
    columns |= {"noise_variance": np.full_like(mean, 0.25), "functional_variance": functional}
    columns |= {"point_mean": centre + np.zeros_like(mean)} if options.point else {}
    kind = "sampled" if options.factorised else "linearised"
    log_density = -0.5 * ((obs - draws[..., 0]) ** 2 / 0.25 + np.log(2 * np.pi * 0.25))
    predictive = xr.Dataset({name: (dims, v.astype(np.float32)) for name, v in columns.items()})
    return {
        f"predictive_{kind}": with_coords(predictive.assign_attrs(interval=0.95, num_samples=options.num_draws)),
        "log_likelihood": _log_likelihood(log_density, kind),
        "observed_data": with_coords(xr.Dataset({"obs": ("obs_id", obs.astype(np.float32))}, attrs={"split": "test"})),
    }


def _images(options: Options, labels: np.ndarray, data_rng: np.random.Generator) -> xr.Dataset:
    patterns = data_rng.uniform(size=(options.num_classes, *options.image_shape))
    x = 0.8 * patterns[labels] + 0.2 * data_rng.uniform(size=(options.num_obs, *options.image_shape))
    data = {"x": (("obs_id", "channel", "height", "width"), x.astype(np.float32))}
    return with_coords(xr.Dataset(data, attrs={"split": "test"}))
