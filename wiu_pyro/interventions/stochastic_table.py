"""The table of `stochastic_layers`: figures of all networks, kinds and sets, and intervals that hold together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.export.attributes import posterior_attrs
from wiu_pyro.export.sources import read_source
from wiu_pyro.infer import Fit
from wiu_pyro.interventions.layer_sets import LayerSet
from wiu_pyro.interventions.set_predictions import SetPrediction
from wiu_pyro.interventions.set_scores import KINDS, Scored, counts_of, scored
from wiu_pyro.interventions.stochastic_config import StochasticLayersConfig
from wiu_pyro.metrics import Effects

__all__ = ["Network", "stochastic_table"]

EFFECTS = ("first_order", "total", "shapley")
VARIANCES = {"probability": "probability_variance", "output": "output_variance"}
CARRIED = (
    "guide",
    "approximation",
    "curvature",
    "structure",
    "prior",
    "prior_tuned",
    "likelihood",
    "num_data",
    "temperature",
    "converged",
    "convergence_detail",
)
MEANINGS = {
    "value": "the metric with only the set's layers uncertain",
    "difference": "from the whole posterior's, mean over the networks",
    "variance_share": "of the whole posterior's variance, summed over classes and images",
    "effect_share": "of the variance, summed over classes and images, that a layer is the origin of",
    "effect_se": "Monte Carlo standard error of the share; 0 in closed form",
    "refit_converged": "1: the refit had converged, 0: it had not, -1: not assessed, or nothing was trained",
}


@dataclass
class Network:
    """What was found of one network.

    Attributes
    ----------
    predictive : {"linearised", "sampled"}
    test, ood : dict of (kind, set) to SetPrediction
    converged : dict of str to int
        Of refits that were trained, by set.
    effects : dict of str to list of Effects
        By response.
    reason, effects_reason : str
        Why nothing was refitted; why there are no effects.
    """

    predictive: str
    test: dict[tuple[str, str], SetPrediction]
    ood: dict[tuple[str, str], SetPrediction]
    converged: dict[str, int] = field(default_factory=dict)
    effects: dict[str, list[Effects]] = field(default_factory=dict)
    reason: str = ""
    effects_reason: str = ""

    def keep(
        self, kind: str, found: tuple[dict[str, SetPrediction], dict[str, SetPrediction]], names: Iterable[str]
    ) -> None:
        """Take the predictions of some sets as those of a kind."""
        for name in names:
            for own, predictions in zip((self.test, self.ood), found, strict=True):
                if name in predictions:
                    own[kind, name] = predictions[name]

    def leave(self, kind: str, *, keep: Sequence[str]) -> None:
        """Drop the predictions of a kind but for some sets."""
        for own in (self.test, self.ood):
            for key in [key for key in own if key[0] == kind and key[1] not in keep]:
                del own[key]


def stochastic_table(
    networks: Sequence[Network],
    fits: Sequence[Fit],
    labels: np.ndarray,
    *,
    sets: Sequence[LayerSet],
    layers: Sequence[str],
    config: StochasticLayersConfig,
    seed: int,
) -> xr.Dataset:
    """Return the table of what was found of all networks.

    Parameters
    ----------
    networks : sequence of Network
    fits : sequence of Fit
        The same ones.
    labels : ndarray
        Of the data.
    sets : sequence of LayerSet
    layers : sequence of str
    config : StochasticLayersConfig
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset
    """
    names = [found.name for found in sets]
    num_ood = max((len(one.mean) for one in networks[0].ood.values()), default=0)
    counts = counts_of(len(labels), num_ood, num_bootstrap=config.num_bootstrap, seed=seed)
    found = [scored(one.test, one.ood, labels, sets=names, counts=counts, bins=config.bins) for one in networks]
    # below, intervals are over images and draws
    seeds = metrics.num_replicates([one.seed for one in fits]) >= metrics.FEWEST_SEEDS
    table = _compared(found, seeds=seeds, level=config.level).merge(_effects(networks, seeds=seeds, level=config.level))
    member = np.array([[layer in one.layers for layer in layers] for one in sets], dtype=np.int8)
    converged = [[one.converged.get(name, -1) for name in names] for one in networks]
    table = table.assign(
        member=(("layer_set", "layer"), member.reshape(len(sets), len(layers))),
        also=("layer_set", ["; ".join(one.also) for one in sets]),
        refit_converged=(("chain", "layer_set"), np.array(converged, dtype=np.int8)),
    )
    table = table.assign_coords(
        kind=list(KINDS), layer_set=names, metric=list(found[0].value), layer=list(layers), chain=np.arange(len(fits))
    )
    for name, text in MEANINGS.items():
        if name in table:
            table[name].attrs["long_name"] = text
    table.attrs = _attrs(networks, fits, config) | {
        "interval": "seeds" if seeds else "images",
        "effect_interval": "seeds" if seeds else "draws",
        "num_images": len(labels),
        "num_ood": num_ood,
        "seed_of_draws": seed,
    }
    return table


def _compared(found: Sequence[Scored], *, seeds: bool, level: float) -> xr.Dataset:
    """Return the values, and differences from the whole posterior with intervals."""
    value = {name: np.stack([one.value[name] for one in found]) for name in found[0].value}
    columns: dict[str, list[np.ndarray]] = {"": [], "_low": [], "_high": []}
    for name, figures in value.items():
        spread = np.mean([one.replicates[name] for one in found], axis=0)
        away = figures - figures[:, :1, -1:]
        ends = _intervals(away, spread - spread[:1, -1:], seeds=seeds, level=level)
        for key, part in zip(columns, ends, strict=True):
            columns[key].append(part)
    dims = ("kind", "layer_set", "metric")
    data: dict[str, Any] = {"value": (("chain", *dims), np.stack(list(value.values()), axis=-1))}
    data |= {f"difference{key}": (dims, np.stack(parts, axis=-1)) for key, parts in columns.items()}
    shares: dict[str, list[np.ndarray]] = {"": [], "_low": [], "_high": []}
    responses = [name for name, metric in VARIANCES.items() if metric in value]
    for name in responses:
        figures = value[VARIANCES[name]]
        spread = np.mean([one.replicates[VARIANCES[name]] for one in found], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = figures / figures[:, :1, -1:]
            ratio = figures.mean(0) / figures.mean(0)[:1, -1:]
            drawn = spread / spread[:1, -1:]
        noise = ratio * np.sqrt(np.square([one.noise[name] for one in found]).sum(axis=0)) / len(found)
        drawn = drawn + noise[..., None] * np.random.default_rng(0).normal(size=drawn.shape)
        ends = _intervals(each, drawn, seeds=seeds, level=level, estimate=ratio)
        for key, part in zip(shares, ends, strict=True):
            shares[key].append(part)
    dims = ("response", "kind", "layer_set")
    data |= {f"variance_share{key}": (dims, np.stack(parts)) for key, parts in shares.items()}
    return xr.Dataset(data, coords={"response": responses})


def _intervals(
    each: np.ndarray, replicates: np.ndarray, *, seeds: bool, level: float, estimate: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimates and interval ends, (kinds, sets) each: over networks, else over resampled images."""
    shape, num, each = each.shape[1:], len(each), each.copy()
    itself = each[0, :, -1].copy()
    each[..., -1] = np.nan  # the whole posterior against itself: nothing to compare
    if seeds:
        columns, place = np.unique(each.reshape(num, -1), axis=1, return_inverse=True)  # sets that are one count once
        found = metrics.student_intervals(columns, level=level)
        found = metrics.Intervals(found.estimate[place], found.low[place], found.high[place])
    else:
        centre = np.where(np.isnan(each[0]), np.nan, each.mean(axis=0) if estimate is None else estimate)
        found = metrics.bootstrap_intervals(centre.ravel(), replicates.reshape(-1, replicates.shape[-1]).T, level=level)
    estimates, low, high = (part.reshape(shape) for part in (found.estimate, found.low, found.high))
    estimates[:, -1] = itself
    return estimates, low, high


def _effects(networks: Sequence[Network], *, seeds: bool, level: float) -> xr.Dataset:
    """Return each layer's shares of the variance, with Monte Carlo errors and intervals."""
    if not all(one.effects for one in networks):
        return xr.Dataset()
    responses = list(networks[0].effects)
    found = [[metrics.variance_shares(one.effects[name]) for name in responses] for one in networks]
    share, error = (
        np.array([[[pair[place][effect] for pair in one] for effect in EFFECTS] for one in found]) for place in (0, 1)
    )  # (chain, effect, response, layer)
    mean, se = share.mean(axis=0), np.sqrt(np.square(error).sum(axis=0)) / len(share)
    if seeds:
        parts = [metrics.student_intervals(share[:, i, j], level=level) for i, j in np.ndindex(share.shape[1:3])]
        low, high = (np.stack([getattr(one, end) for one in parts]).reshape(mean.shape) for end in ("low", "high"))
    else:
        counts = [len(one) for network in networks for one in network.effects.values() if len(one) > 1]
        num = min(counts, default=2)
        reach = stats.t.isf((1 - level) / (2 * share.shape[-1]), len(networks) * (num - 1)) * se
        low, high = mean - reach, mean + reach
    dims = ("effect", "response", "layer")
    return xr.Dataset(
        {
            "effect_share": (dims, mean),
            "effect_se": (dims, se),
            "effect_low": (dims, low),
            "effect_high": (dims, high),
            "effect_by_chain": (("chain", *dims), share),
        },
        coords={"effect": list(EFFECTS), "response": responses},
    )


def _attrs(networks: Sequence[Network], fits: Sequence[Fit], config: StochasticLayersConfig) -> dict[str, Any]:
    sources = [read_source(one, model=None, data=None, num_samples=2, seed=0) for one in fits]
    held = [posterior_attrs(source, labels={}) for source in sources]
    verdicts = [one["converged"] for one in held]
    return {name: held[0][name] for name in CARRIED if name in held[0]} | {
        "converged": next((word for word in ("no", "not assessed") if word in verdicts), "yes"),
        "seed": [one.seed for one in fits],
        "num_seeds": len({one.seed for one in fits}),
        "predictive": networks[0].predictive,
        "num_samples": config.num_samples,
        "effect_draws": config.effect_draws,
        "effect_images": config.effect_images,
        "level": config.level,
        "refitted_reason": networks[0].reason,
        "effects_reason": next((one.effects_reason for one in networks if one.effects_reason), ""),
    }
