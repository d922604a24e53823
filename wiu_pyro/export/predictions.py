"""The groups over data: predictives, log-likelihood of each draw, the labels and the inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from wiu_pyro.export.layer_groups import with_coords
from wiu_pyro.export.sources import Source
from wiu_pyro.infer import Fit, Predictions, assess, predict
from wiu_pyro.infer.predict import INTERVAL
from wiu_pyro.nn import as_batches

__all__ = [
    "Observations",
    "by_member",
    "constant_group",
    "log_likelihood_group",
    "observations",
    "observed_group",
    "observed_groups",
    "predict_chains",
    "predictive_group",
    "predictive_kinds",
    "with_log_joint",
]

MEMBERS = ("member_mean", "member_variance")  # of an ensemble
MAX_INPUT_BYTES = 64 * 2**20
# field of Predictions -> dims after chain; those a likelihood or a link has not are left out
CLASSIFICATION = {
    "mean": ("obs_id", "class"),
    "lower": ("obs_id", "class"),
    "upper": ("obs_id", "class"),
    "point_mean": ("obs_id", "class"),
    "predictive_entropy": ("obs_id",),
    "expected_entropy": ("obs_id",),
    "mutual_information": ("obs_id",),
    "functional_variance": ("obs_id", "class"),  # of the logits
    "probability_variance": ("obs_id", "class"),
    "concentration": ("obs_id", "class"),  # of the Laplace bridge's Dirichlet
}
REGRESSION = {
    name: ("obs_id", "output")
    for name in ("mean", "lower", "upper", "point_mean", "variance", "noise_variance", "functional_variance")
}


@dataclass(frozen=True)
class Observations:
    """The data of an export, gone through once so that all groups hold them in the same order.

    Attributes
    ----------
    parts : tuple of Tensor
        What the model is called with: inputs, then labels where there are any.
    """

    parts: tuple[torch.Tensor, ...]

    @property
    def labels(self) -> torch.Tensor | None:
        """Labels, shape (obs,) or (obs, outputs); None where only inputs were given."""
        return self.parts[-1] if len(self.parts) > 1 else None


def observations(data: Any) -> Observations:
    """Read the data whole, in the order of one pass.

    Parameters
    ----------
    data : DataLoader, Dataset or tuple of tensors

    Returns
    -------
    Observations
    """
    batches = list(as_batches(data))
    return Observations(tuple(torch.cat(parts) for parts in zip(*batches, strict=True)))


class _Replay:
    """Stands in for a guide where draws are at hand: each call gives the next one, from the first again after all."""

    def __init__(self, draws: Iterable[Mapping[str, torch.Tensor]]) -> None:
        self.draws = itertools.cycle(draws)

    def __call__(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(next(self.draws))


def predict_chains(
    source: Source, observed: Observations, kind: str, *, centres: Sequence[Mapping[str, torch.Tensor]], link: str
) -> list[Predictions]:
    """Predict the data with each network of a posterior.

    Parameters
    ----------
    source : Source
    observed : Observations
    kind : {"linearised", "sampled"}
    centres : sequence of mapping of site to Tensor
        Mean of the weights in each chain: the point estimate where there is no fit to ask.
    link : str
        As `wiu_pyro.infer.predict` takes it.

    Returns
    -------
    list of Predictions
    """
    options = {"kind": kind, "link": link, "num_samples": source.num_draws, "seed": source.seed}
    if source.fit is not None:
        return [predict(source.fit, observed.parts, **options)]
    found = []
    for chain, centre in zip(source.chains, centres, strict=True):
        guide = _Replay(chain.draws()) if source.guide is None else source.guide
        one = predict(_as_fit(source, guide, centre), observed.parts, **options)
        # the mean over a Markov chain that moves between modes is no network
        found.append(one if source.guide is not None else replace(one, point_mean=None))
    return found


def _as_fit(source: Source, guide: Any, centre: Mapping[str, torch.Tensor]) -> Fit:
    return Fit(
        model=source.model,
        guide=guide,
        losses=np.empty(0),
        validation={},
        convergence=assess([]),
        seed=source.seed,
        settings={},
        structure=source.structure,
        point_estimate=dict(centre),
    )


def predictive_group(predictions: Sequence[Predictions]) -> xr.Dataset:
    """Return group `predictive_<kind>` from the predictions of each chain; what a link does not give is left out."""
    table = REGRESSION if predictions[0].likelihood == "normal" else CLASSIFICATION
    variables = {}
    for name, dims in table.items():
        parts = [getattr(one, name, None) for one in predictions]
        if any(part is None for part in parts):
            continue
        values = np.stack([np.asarray(part, np.float32) for part in parts])
        variables[name] = (("chain", *dims), values.reshape(*values.shape[:2], -1) if len(dims) == 2 else values)
    first = predictions[0]
    attrs = {"interval": INTERVAL, "num_samples": first.num_samples}
    for name in MEMBERS:
        if all(getattr(one, name) is not None for one in predictions):
            values = np.stack([np.asarray(getattr(one, name), np.float32) for one in predictions])
            dims = ("chain", "member", *table["mean"])
            variables[name] = (dims, values.reshape(*values.shape[:3], -1))
            attrs["mixture"] = "over members: mean of their means, quantiles and mean entropy of all their draws"
            attrs["point_mean"] = "of the first member"
    if first.kind == "linearised" and first.likelihood != "normal":
        attrs["link"] = first.link
    return with_coords(xr.Dataset(variables, attrs=attrs))


def predictive_kinds(asked: str | None, default: str) -> tuple[str, ...]:
    """Return the kinds of predictive that an export computes, by what `ExportConfig` was asked for."""
    if asked is None:
        return ()
    return {"auto": (default,), "both": ("linearised", "sampled")}.get(asked, (asked,))


def by_member(prediction: Predictions, members: int) -> list[Predictions]:
    """Return what was predicted by an ensemble once for each member, with that member's log likelihood alone."""
    if prediction.log_likelihood is None:
        return [prediction] * members
    return [replace(prediction, log_likelihood=part) for part in np.split(prediction.log_likelihood, members)]


def log_likelihood_group(predictions: Sequence[Predictions]) -> xr.Dataset | None:
    """Return group `log_likelihood`, (chain, draw, obs_id) in nats; None without labels."""
    if any(one.log_likelihood is None for one in predictions):
        return None
    values = np.stack([np.asarray(one.log_likelihood, np.float32) for one in predictions])
    data = xr.Dataset({"obs": (("chain", "draw", "obs_id"), values)}, attrs={"predictive": predictions[0].kind})
    return with_coords(data)


def observed_group(labels: torch.Tensor, *, split: str, class_names: Sequence[str]) -> xr.Dataset:
    """Return group `observed_data`: the labels; classes are counted from 0 and named in an attribute."""
    values = labels.detach().cpu().numpy()
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    if values.ndim > 1 and values.shape[-1] == 1:
        values = values[..., 0]
    dims = ("obs_id",) if values.ndim == 1 else ("obs_id", "output")
    attrs: dict[str, Any] = {"split": split}
    if class_names:
        attrs["class_names"] = [str(name) for name in class_names]
    return with_coords(xr.Dataset({"obs": (dims, values)}, attrs=attrs))


def constant_group(inputs: torch.Tensor, *, split: str) -> xr.Dataset | None:
    """Return group `constant_data`: the inputs, float32; None above 64 MiB, or where they are no numbers."""
    if inputs.numel() * 4 > MAX_INPUT_BYTES or inputs.is_complex():
        return None
    ends: Mapping[int, tuple[str, ...]] = {4: ("channel", "height", "width")}
    dims = ends.get(inputs.dim(), tuple(f"x_dim{axis}" for axis in range(inputs.dim() - 1)))
    values = inputs.detach().float().cpu().numpy()
    return with_coords(xr.Dataset({"x": (("obs_id", *dims), values)}, attrs={"split": split}))


def observed_groups(observed: Observations, config: Any) -> dict[str, xr.Dataset]:
    """Return the groups of inputs and labels, those of them that there are.

    Parameters
    ----------
    observed : Observations
    config : ExportConfig

    Returns
    -------
    dict of str to Dataset
    """
    groups = {"constant_data": constant_group(observed.parts[0], split=config.split)}
    if observed.labels is not None:
        groups["observed_data"] = observed_group(observed.labels, split=config.split, class_names=config.class_names)
    return {name: group for name, group in groups.items() if group is not None}


def with_log_joint(num_data: float, groups: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return `sample_stats` with `lp`, the log joint density of each draw, where the data are all the training data."""
    stats, likelihood = groups["sample_stats"], groups.get("log_likelihood")
    if likelihood is None or likelihood.attrs["predictive"] != "sampled":
        return stats
    all_of_it = math.isclose(likelihood.sizes["obs_id"], num_data, rel_tol=1e-6)
    if groups["observed_data"].attrs["split"] != "train" or not all_of_it:
        return stats
    lp = stats["log_prior"] + likelihood["obs"].astype(np.float64).sum("obs_id")
    return stats.assign(lp=lp.assign_attrs(units="nats"))
