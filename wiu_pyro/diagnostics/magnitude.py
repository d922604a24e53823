"""What has the size of a weight to do with its uncertainty? The sd along the absolute mean, layer by layer.

Size and sd are taken relative to the prior's sd, which leaves them as they are where a layer is scaled together with
its prior. The prior alone would put every weight at sd / prior sd = 1 whatever its size; sds that have nothing to do
with the size would stay within the null band.

References
----------
Spearman (1904), The proof and measurement of association between two things.
Owen (2007), The pigeonhole bootstrap (intervals within one network).
Hubert (1987), Assignment methods in combinatorial data analysis (the null: outputs and inputs permuted).
Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1 (ranking by signal-to-noise).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import schema
from wiu_pyro.diagnostics.moments import layers_with_moments, refuse_improper, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.sd_kinds import check_sd, is_factorised
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.size_resampling import replicates
from wiu_pyro.diagnostics.units import Moments, layer_units, pooled_moments
from wiu_pyro.diagnostics.weight_size import (
    QUANTILES,
    Quantities,
    Sorted,
    binned,
    correlation_null_sd,
    kept_in_common,
    pair_slopes,
)
from wiu_pyro.diagnostics.within_network import FEWEST_CLUSTERS
from wiu_pyro.errors import DataError
from wiu_pyro.metrics import FEWEST_SEEDS
from wiu_pyro.metrics.ranks import correlation, rank_shares
from wiu_pyro.metrics.simultaneous import bootstrap_intervals, student_intervals

__all__ = ["LEVELS", "magnitude"]

LEVELS = (0.5, 0.9, 0.95, 0.99)
LEVEL = 0.95  # of intervals and bands
ALMOST = 1 - 1e-9
PAIRS = 200_000
LEAST_WEIGHTS = 20
CORRELATIONS = ("spearman", "rank_agreement")  # whose intervals are symmetric in Fisher's z
FIGURES = (*CORRELATIONS, "slope")
DESCRIPTIONS = {
    "num_weights": "weights of the layer's largest parameter that have a posterior",
    "num_left_out": "those left out: fixed at a point estimate, or not finite",
    "spearman": "Spearman's rank correlation of |mean| / prior sd and sd / prior sd",
    "spearman_null": "size of that correlation that sds unrelated to |mean| stay below",
    "slope": "median slope of log sd over log |mean| between two weights",
    "rank_agreement": "Spearman's rank correlation of |mean| and |mean| / sd",
    "kept_in_common": "share of the weights kept that ranking by |mean| and by |mean| / sd have in common",
    "removed_in_common": "share of the weights removed that both rankings have in common",
    "sd_to_prior": "median over the weights of sd / prior sd",
}


def magnitude(idata: Any, *, sd: str = "marginal", bins: int = 20, num_bootstrap: int = 200) -> xr.Dataset:
    r"""Return how the posterior sd of a layer's weights depends on their size, and whether it would prune others.

    Of each layer the largest parameter is taken, its weight: biases have a prior of their own. Weights at a point
    estimate (sd 0) are left out. All intervals are at 95 %, together over the layers. Within one network they come from
    resampling outputs and inputs at once (of a large layer, a random subset of 16,384 weights), and speak of other
    units of this network, not of another seed; with fewer than 20 outputs or inputs there is none.

    Parameters
    ----------
    idata : InferenceData or DataTree
    sd : str
        ``"marginal"``, or ``"conditional"`` to stand beside a posterior that factorises.
    bins : int
        Of about equally many weights along the size; at least 10 in each.
    num_bootstrap : int
        Replicates behind each interval, at least 2.

    Returns
    -------
    Dataset, dims (layer), (layer, bin), (layer, level) or, with several chains, (chain, ...)
        ``spearman`` of \|mean\| / prior sd and sd / prior sd, with ``spearman_low`` and ``spearman_high``, and
        ``spearman_null``: its size stays below in 95 % of networks (together over the layers) where whole outputs,
        inputs and kernel positions of the sds are permuted. ``slope`` of log sd over log \|mean\| (with low and high).
        ``rank_agreement``: Spearman's correlation of \|mean\| and \|mean\| / sd (with low and high).
        By ``level``, the share removed: ``kept_in_common`` (with low and high), weights kept by both rankings over
        those kept by each; ``removed_in_common``; NaN where fewer than 20 weights are kept. By ``bin``: ``bin_count``,
        ``size`` (median), ``sd_to_prior_q10``, ``_q50``, ``_q90``, and ``null_low``, ``null_high``: where the median
        stays if the sds were unrelated to the size, all bins of the layer together. ``sd_to_prior``: median of the
        layer. ``num_weights``, ``num_left_out``, ``num_clusters`` (outputs or inputs, the fewer; 0: too few). With 5
        chains or more ``seeds_<name>``, ``_low`` and ``_high`` of the first three and of ``kept_in_common``: mean and
        interval over the networks, by Student's t. Attributes: ``sd``, ``factorised``, ``interval``.

    Raises
    ------
    DataError
        If `sd` is unknown, `bins` below 1 or `num_bootstrap` below 2.
    SchemaError
        If the file holds no moments, or no conditional ones and they are asked for.

    References
    ----------
    .. [1] Owen (2007), The pigeonhole bootstrap, section 3.
    .. [2] Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.
    """
    refuse_improper(idata)
    if bins < 1 or num_bootstrap < 2:
        raise DataError(
            f"At least one bin and two bootstrap replicates are needed, got bins={bins}, num_bootstrap={num_bootstrap}."
            " Leave them out for 20 and 200."
        )
    names = layers_with_moments(idata)
    check_sd(idata, names, sd)
    networks = schema.dataset(idata, schema.moments_group(names[0])).sizes["chain"]
    parts, drawn = {}, {}
    for place in product(range(networks), names):
        quantities, clusters = _quantities(idata, *place, conditional=sd == "conditional")
        drawn[place] = replicates(quantities.trimmed(), LEVELS, num_bootstrap=num_bootstrap) if clusters else {}
        parts[place] = _figures(quantities, clusters=clusters if drawn[place] else 0, bins=bins)
    rows = [xr.concat([parts[chain, name] for chain in range(networks)], dim="chain") for name in names]
    table = xr.concat(rows, dim=xr.Variable("layer", names)).transpose("chain", "layer", ...)
    table = table.assign_coords(level=list(LEVELS), bin=np.arange(bins))
    table["spearman_null"] = table["spearman_null"] * _normal_reach(len(names))
    for chain, name in product(range(networks), (*FIGURES, "kept_in_common")):
        _add_interval(table, name, chain, [drawn[chain, layer] for layer in names])
    if num_seeds(idata) >= FEWEST_SEEDS:
        _add_seeds(table)
    for name, text in DESCRIPTIONS.items():
        table[name].attrs["long_name"] = text
    table.attrs = carried_attrs(idata) | {
        "sd": sd,
        "factorised": int(is_factorised(idata, names)),
        "num_seeds": num_seeds(idata),
    }
    return squeeze_chain(table)


def _quantities(idata: Any, chain: int, layer: str, *, conditional: bool) -> tuple[Quantities, int]:
    """Return what is related in the layer's largest parameter, and its fewest outputs or inputs; 0: too few."""
    units = layer_units(idata, layer, chain=chain)
    if units is not None:
        quantities = Quantities.of(units.weight, conditional=conditional)
        fewest = min(quantities.trimmed().known.shape[:2])
        return quantities, fewest if fewest >= FEWEST_CLUSTERS else 0
    largest = max(pooled_moments(idata, layer, chain=chain), key=lambda moments: moments.mean.size)
    shape = (*largest.mean.shape[:1], -1, 1)
    laid_out = (None if part is None else part.reshape(shape) for part in vars(largest).values())
    return Quantities.of(Moments(*laid_out), conditional=conditional), 0


def _normal_reach(comparisons: int) -> float:
    return float(stats.norm.isf((1 - LEVEL) / (2 * comparisons)))


def _figures(quantities: Quantities, *, clusters: int, bins: int) -> xr.Dataset:
    """Return the figures of one layer of one network."""
    known = int(quantities.known.sum())
    figures: dict[str, Any] = {
        "num_weights": known,
        "num_left_out": quantities.known.size - known,
        "num_clusters": clusters,
    }
    figures |= dict.fromkeys((*FIGURES, "spearman_null", "sd_to_prior"), np.nan)
    common, curve = np.full(len(LEVELS), np.nan), dict.fromkeys(_curve_names(), np.full(bins, np.nan))
    if known >= LEAST_WEIGHTS:
        absolute = Sorted.of(quantities.of_known("absolute"))
        shares = (absolute.share, rank_shares(quantities.of_known("snr")))
        common = kept_in_common(shares, LEVELS)
        related, curve = _relation(quantities, absolute, bins)
        figures |= related | {"rank_agreement": correlation(*shares)}
    levels = np.array(LEVELS)
    data = {name: ((), value) for name, value in figures.items()}
    data |= {name: ("bin", values) for name, values in curve.items()}
    data["kept_in_common"] = ("level", common)
    data["removed_in_common"] = ("level", 1 - (1 - levels) * (1 - common) / levels)
    return xr.Dataset(data)


def _curve_names() -> list[str]:
    return ["bin_count", "size", *(f"sd_to_prior_{name}" for name in QUANTILES), "null_low", "null_high"]


def _relation(quantities: Quantities, absolute: Sorted, bins: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the figures and the curve of size against sd."""
    # with one prior sd, what sorts |mean| sorts |mean| / prior sd
    size = Sorted.of(quantities.of_known("size"), order=absolute.order if quantities.one_prior else None)
    ratio = Sorted.of(quantities.of_known("ratio"))
    slopes, _ = pair_slopes(size.values, ratio.values, pairs=PAIRS)
    figures = {
        "spearman": correlation(size.share, ratio.share),
        "spearman_null": correlation_null_sd(size.share, ratio.share, quantities.known),
        "slope": float(np.median(slopes)) if slopes.size else np.nan,
        "sd_to_prior": float(np.median(ratio.values)),
    }
    curve = binned(size, ratio, quantities.known, bins=bins, level=LEVEL)
    return figures, dict(zip(_curve_names(), curve.values(), strict=True))


def _add_interval(table: xr.Dataset, name: str, chain: int, drawn: list[dict[str, np.ndarray]]) -> None:
    """Write the interval of one figure within one network, the layers together, each level by itself."""
    for end in ("low", "high"):
        if f"{name}_{end}" not in table:
            table[f"{name}_{end}"] = xr.full_like(table[name], np.nan)
    num = max((len(each[name]) for each in drawn if each), default=0)
    if num == 0:
        return
    estimate = table[name].isel(chain=chain).values  # (layer[, level])
    nothing = np.full((num, *estimate.shape[1:]), np.nan)
    resampled = _to_scale(name, np.stack([each.get(name, nothing) for each in drawn], axis=1))
    units = np.maximum(table["num_clusters"].isel(chain=chain).values, 2)
    for level in np.ndindex(estimate.shape[1:]):
        found = bootstrap_intervals(
            _to_scale(name, estimate[:, *level]), resampled[:, :, *level], level=LEVEL, num_clusters=units
        )
        for end in ("low", "high"):
            table[f"{name}_{end}"].values[chain, :, *level] = _from_scale(name, getattr(found, end))


def _to_scale(name: str, values: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(values, -ALMOST, ALMOST)) if name in CORRELATIONS else values


def _from_scale(name: str, values: np.ndarray) -> np.ndarray:
    if name in CORRELATIONS:
        return np.tanh(values)
    return np.clip(values, 0, 1) if name == "kept_in_common" else values


def _add_seeds(table: xr.Dataset) -> None:
    """Write mean and interval of each figure over the networks, the layers together, each level by itself."""
    for name in (*FIGURES, "kept_in_common"):
        values = _to_scale(name, table[name].values)  # (chain, layer[, level])
        for end, part in {"": "estimate", "_low": "low", "_high": "high"}.items():
            out = np.empty(values.shape[1:])
            for level in np.ndindex(values.shape[2:]):
                found = student_intervals(values[:, :, *level], level=LEVEL)
                out[:, *level] = _from_scale(name, getattr(found, part))
            table[f"seeds_{name}{end}"] = (table[name].dims[1:], out)
