"""Do the layers differ in their uncertainty? All pairs of layers in every metric, with intervals that hold together.

References
----------
Dunn (1961), Multiple comparisons among means. Owen (2007), The pigeonhole bootstrap.
Cliff (1993), Dominance statistics. Dinh, Pascanu, Bengio and Bengio (2017), Sharp minima can generalize for deep nets
(a ReLU network computes the same after one layer is scaled up and the next one down).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.layer_distances import EXACT_WEIGHTS, QUANTITIES, layer_distances
from wiu_pyro.diagnostics.layer_shares import layer_shares
from wiu_pyro.diagnostics.layer_uncertainty import layer_uncertainty
from wiu_pyro.diagnostics.moments import refuse_improper, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.units import layer_units
from wiu_pyro.diagnostics.within_network import Resampling, resampled_figures
from wiu_pyro.errors import SchemaError
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["RESCALING_INVARIANT", "between_layers"]

RESCALING_INVARIANT = (
    "sd_to_prior",
    "snr_q05",
    "snr_q50",
    "snr_q95",
    "contraction",
    "conditional_sd_to_prior",
    "conditional_contraction",
    "effective_parameters",
    "contraction_sum",
    "effective_share",
    "kl",
    "kl_per_weight",
    "kl_share",
)
NOT_COMPARED = ("num_weights", "num_uncertain", "kl_se")  # known beforehand; a figure's own error
MEANINGS = {
    "value": "the metric in each layer",
    "difference": "first layer minus second, mean over the networks",
    "seeds_low": "lower end of the interval of the difference over seeds, simultaneous over the pairs",
    "seeds_high": "upper end of the interval of the difference over seeds, simultaneous over the pairs",
    "within_low": "lower end of the interval within one network (two-way bootstrap), simultaneous over the pairs",
    "within_high": "upper end of the interval within one network (two-way bootstrap), simultaneous over the pairs",
    "within_reason": "why a layer has no interval within one network",
    "rescaling_invariant": "1: unchanged when a ReLU layer is scaled up and the next one down, priors with them",
    "cliffs_delta": "share of pairs of weights in which the first layer's is larger, minus that in which it is smaller",
    "wasserstein": "Wasserstein distance of the two layers' distributions over their weights",
    "gini": "Gini coefficient over the layers: 0 evenly spread, 1 all in one layer",
    "evenness": "entropy of the layers' shares, divided by its largest value: 1 evenly spread, 0 all in one layer",
}


def between_layers(idata: Any, *, level: float = 0.95, num_bootstrap: int = 1_000, seed: int = 0) -> xr.Dataset:
    """Compare all pairs of layers in every metric of `layer_uncertainty`, with intervals that hold together.

    Seeds are the replicates. With five networks or more, trained from different seeds, the difference between two
    layers is taken network by network, and its mean gets a Student interval with Bonferroni's correction over the pairs
    (of each metric by itself): valid with few seeds and however the pairs depend; a bootstrap of five points is not.

    With fewer there is no such interval (NaN). What can be given is one within each network: outputs and inputs of
    each layer are resampled independently (pigeonhole bootstrap), and the largest studentised deviation over the pairs
    sets the width. It says what other units of this network would change, not what another training would. A layer
    of fewer than 20 outputs or inputs has none, nor have the KL and the effective parameters of a layer whose weights
    are correlated: no unit has a part of those.

    Parameters
    ----------
    idata : InferenceData or DataTree
        Several seeds are joined by `wiu_pyro.concat`. Chains of one MCMC run are one network.
    level : float
        Of the intervals of one metric together, between 0 and 1.
    num_bootstrap : int
        Replicates of the two-way bootstrap.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset, dims (metric, layer), (metric, pair), (quantity, pair), (share_of); with several networks also (chain)
        ``value`` (metric, layer), ``difference`` (metric, pair): first minus second layer, mean over networks;
        ``first``, ``second`` (pair). ``seeds_low``, ``seeds_high`` (metric, pair). With fewer than five seeds:
        ``within_low``, ``within_high`` (metric, pair) of each network, and ``within_reason`` (metric, layer), text,
        empty where there is an interval. ``rescaling_invariant`` (metric): 0 where the metric depends on the
        parametrisation, as raw sds do. ``meaning`` (metric). Effect sizes over the weights' ``contraction`` and
        ``log_snr`` (quantity): ``cliffs_delta``, -1 to 1, and ``wasserstein``, in the quantity's unit (log_snr: nats,
        ratios below 0.001 counted as that), with ``cliffs_delta_low`` and so on from five seeds, simultaneous too;
        of a layer above 20,000 weights by as many quantiles, which leaves Cliff's delta right to 0.0002. Over
        the layers (share_of: kl, effective, kl_per_weight, effective_per_weight): ``gini`` and ``evenness``, with
        ``gini_low`` and so on from five seeds, each for itself. Attributes: ``num_seeds``, ``level``, ``interval``,
        ``interval_method``, ``effect_method``.

    Raises
    ------
    SchemaError
        If fewer than two layers have moments.

    See Also
    --------
    layer_uncertainty : The metrics, layer by layer.
    between_statement : What was found, in words.
    """
    refuse_improper(idata)
    table = layer_uncertainty(idata)
    attrs = dict(table.attrs)
    table = table if "chain" in table.dims else table.expand_dims("chain")
    if table.sizes["layer"] < 2:
        raise SchemaError(
            f"At least two layers are needed to compare, but the file holds '{table['layer'].item()}' alone. "
            "See wiu_pyro.diagnostics.within_layer for what lies within it."
        )
    value = _values(table)
    replicates = num_seeds(idata)
    out = _differences(value, level=level, seeds=replicates >= FEWEST_SEEDS)
    if replicates < FEWEST_SEEDS:
        out = out.merge(_within(idata, value, level=level, num_bootstrap=num_bootstrap, seed=seed))
    out = out.merge(_distances(idata, value, level=level, seeds=replicates >= FEWEST_SEEDS))
    out = out.merge(layer_shares(table, level=level, seeds=replicates >= FEWEST_SEEDS))
    out["meaning"] = ("metric", [str(table[name].attrs.get("long_name", "")) for name in out["metric"].values])
    for name in out.data_vars:
        stem = str(name).removesuffix("_low").removesuffix("_high")
        if str(name) in MEANINGS or stem in MEANINGS:
            out[name].attrs["long_name"] = MEANINGS.get(str(name), f"interval over seeds of {stem}")
    out.attrs = carried_attrs(idata) | attrs | {"num_seeds": replicates, "level": level} | _method(replicates)
    return squeeze_chain(out)


def _values(table: xr.Dataset) -> xr.DataArray:
    """Return every metric of the layer table that is compared, (chain, metric, layer)."""
    names = [
        str(name) for name, data in table.data_vars.items() if "layer" in data.dims and str(name) not in NOT_COMPARED
    ]
    arrays = [table[name].astype(np.float64).transpose("chain", "layer").values for name in names]
    layers = table["layer"].values.astype(str)
    coords = {"chain": np.arange(table.sizes["chain"]), "metric": names, "layer": layers}
    return xr.DataArray(np.stack(arrays, axis=1), dims=("chain", "metric", "layer"), coords=coords, name="value")


def _pairs(value: xr.DataArray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the places of first and second layer of each pair, and what the pair is called."""
    layers = value["layer"].values.tolist()
    first, second = (np.array(side) for side in zip(*combinations(range(len(layers)), 2), strict=True))
    return first, second, [f"{layers[i]} − {layers[j]}" for i, j in zip(first, second, strict=True)]


def _differences(value: xr.DataArray, *, level: float, seeds: bool) -> xr.Dataset:
    first, second, names = _pairs(value)
    layers = value["layer"].values
    each = value.values[:, :, first] - value.values[:, :, second]  # (chain, metric, pair)
    found = [metrics.student_intervals(each[:, place], level=level) for place in range(each.shape[1])]
    low, high = (np.stack([getattr(one, end) for one in found]) for end in ("low", "high"))
    invariant = [int(name in RESCALING_INVARIANT) for name in value["metric"].values]
    return xr.Dataset(
        {
            "value": value,
            "difference": (("metric", "pair"), np.stack([one.estimate for one in found])),
            "seeds_low": (("metric", "pair"), low if seeds else np.full_like(low, np.nan)),
            "seeds_high": (("metric", "pair"), high if seeds else np.full_like(high, np.nan)),
            "rescaling_invariant": ("metric", invariant),
            "first": ("pair", layers[first].astype(str)),
            "second": ("pair", layers[second].astype(str)),
        },
        coords={"pair": names},
    )


def _within(idata: Any, value: xr.DataArray, *, level: float, num_bootstrap: int, seed: int) -> xr.Dataset:
    """Return intervals within each network, (chain, metric, pair), and why layers have none."""
    first, second, _ = _pairs(value)
    low = np.full((value.sizes["chain"], value.sizes["metric"], first.size), np.nan)
    high, reasons = low.copy(), np.empty(value.shape[1:], dtype=object)
    for chain in range(value.sizes["chain"]):
        found, clusters = _resampled(idata, value, chain=chain, num_bootstrap=num_bootstrap, seed=seed)
        for place, name in enumerate(value["metric"].values):
            nothing = np.full(num_bootstrap, np.nan)
            columns = np.stack([one.replicates.get(name, nothing) for one in found], axis=1)  # (num_bootstrap, layer)
            intervals = metrics.bootstrap_intervals(
                value.values[chain, place, first] - value.values[chain, place, second],
                columns[:, first] - columns[:, second],
                level=level,
                num_clusters=np.minimum(clusters[first], clusters[second]),
            )
            low[chain, place], high[chain, place] = intervals.low, intervals.high
            reasons[place] = [one.reasons[name] for one in found]
    dims = ("chain", "metric", "pair")
    return xr.Dataset(
        {
            "within_low": (dims, low),
            "within_high": (dims, high),
            "within_reason": (("metric", "layer"), reasons.astype(str)),
        }
    )


def _resampled(
    idata: Any, value: xr.DataArray, *, chain: int, num_bootstrap: int, seed: int
) -> tuple[list[Resampling], np.ndarray]:
    """Return the bootstrap of each layer of one network, and its fewest clusters."""
    found, clusters = [], []
    for place, layer in enumerate(value["layer"].values.tolist()):
        units = layer_units(idata, layer, chain=chain)
        moments = schema.dataset(idata, schema.moments_group(layer))
        figures = {
            str(name): float(value.isel(chain=chain, layer=place).sel(metric=name)) for name in value["metric"].values
        }
        found.append(
            resampled_figures(
                units,
                figures,
                num_bootstrap=num_bootstrap,
                factorised=bool(moments.attrs.get("factorised", 0)),
                seed=seed + 1_000 * chain + place,
            )
        )
        clusters.append(np.inf if units is None else min(units.clusters))
    return found, np.array(clusters)


def _distances(idata: Any, value: xr.DataArray, *, level: float, seeds: bool) -> xr.Dataset:
    first, second, _ = _pairs(value)
    layers = value["layer"].values.tolist()
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    chains = [layer_distances(idata, layers, pairs, chain=chain) for chain in range(value.sizes["chain"])]
    out = xr.Dataset(coords={"quantity": list(QUANTITIES)})
    for name in ("cliffs_delta", "wasserstein"):
        each = np.stack([one[name] for one in chains])  # (chain, quantity, pair)
        out[name] = (("chain", "quantity", "pair"), each)
        if seeds:
            found = [metrics.student_intervals(each[:, place], level=level) for place in range(each.shape[1])]
            for end in ("low", "high"):
                out[f"{name}_{end}"] = (("quantity", "pair"), np.stack([getattr(one, end) for one in found]))
    return out


def _method(replicates: int) -> dict[str, str]:
    if replicates >= FEWEST_SEEDS:
        how = f"paired differences over {replicates} seeds, Student's t, Bonferroni over the pairs of a metric"
        return {"interval": "seeds", "interval_method": how, "effect_method": _effect_method()}
    how = (
        "two-way bootstrap over outputs and inputs within one network, largest |t| over the pairs of a metric; "
        f"{replicates} of the {FEWEST_SEEDS} seeds that intervals over seeds need"
    )
    return {"interval": "within one network", "interval_method": how, "effect_method": _effect_method()}


def _effect_method() -> str:
    return f"over all weights and biases; layers above {EXACT_WEIGHTS:,} by as many quantiles"
