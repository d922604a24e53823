"""How do the weights within each layer spread? A histogram of one quantity by layer, from the full moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.diagnostics.moments import (
    LayerMoments,
    layer_moments,
    layers_with_moments,
    refuse_improper,
    squeeze_chain,
)
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.errors import DataError, SchemaError, near_matches

__all__ = ["METRICS", "weight_distribution"]

METRICS = {
    "sd_to_prior": "posterior sd / prior sd",
    "conditional_sd_to_prior": "conditional sd / prior sd",
    "signal_to_noise": "signal-to-noise |mean| / sd",
    "contraction": "contraction 1 − sd² / prior sd²",
}
LOGARITHMIC = ("signal_to_noise",)
AT_PRIOR = 0.01
FLOOR = 1e-3  # of a logarithmic scale: the mean of a dead weight decays to 1e-40 sd, and how far says nothing
EDGE_SHARE = 0.001


def weight_distribution(idata: Any, metric: str = "sd_to_prior", *, bins: int = 60) -> xr.Dataset:
    """Return how one quantity is distributed over the weights of each layer.

    Parameters
    ----------
    idata : InferenceData or DataTree
    metric : str
        ``"sd_to_prior"``, ``"conditional_sd_to_prior"``, ``"signal_to_noise"`` or ``"contraction"``.
    bins : int
        Bins of equal width, the same for all layers; of the signal-to-noise ratio equal in its logarithm.

    Returns
    -------
    Dataset, dims (layer, bin) or, with several chains, (chain, layer, bin)
        ``density``: share of the layer's weights per unit of the metric (of signal-to-noise: per decade); it
        integrates to 1 - ``outside``. ``left``, ``right`` (bin): edges. ``outside`` (layer): share of weights beyond
        the outermost edges, which leave out at most 0.1 % of all weights at each end, and those without a value; of
        the signal-to-noise ratio also all below 0.001, whose share is ``below_floor`` (layer).
        ``q05``, ``q50``, ``q95`` (layer). ``at_prior`` (layer): share of weights whose sd is within 1 % of the
        prior's, which data say nothing about. ``uncertain`` (layer): share of weights that have a posterior; all other
        figures are of these alone, NaN where there is none. Attributes: ``metric``, ``label``, ``log`` (1 or 0).

    Raises
    ------
    DataError
        If the metric is unknown or `bins` below 1.
    SchemaError
        If the file holds no moments, or conditional ones are asked for and it has none.
    """
    if metric not in METRICS:
        raise DataError(f"Unknown metric '{metric}'. {near_matches(metric, METRICS)}")
    if bins < 1:
        raise DataError(f"At least one bin is needed, got bins={bins}. Use 60.")
    if metric != "signal_to_noise":
        refuse_improper(idata)
    names = layers_with_moments(idata)
    log = metric in LOGARITHMIC
    values, at_prior, uncertain = {}, [], []
    for name in names:
        moments = layer_moments(idata, name)
        found = _values(moments, metric, name)
        values[name] = [row[own] for row, own in zip(found, moments.uncertain, strict=True)]
        at_prior.append(moments.over_uncertain(np.mean, np.abs(moments.sd / moments.prior_sd - 1) <= AT_PRIOR))
        uncertain.append(moments.uncertain.mean(axis=1))
    edges = _edges(values, bins, log=log)
    density, outside = zip(*[_density(v, edges, log=log) for v in values.values()], strict=True)
    columns: dict[str, Any] = {
        "density": (("layer", "chain", "bin"), np.stack(density)),
        "outside": (("layer", "chain"), np.stack(outside)),
    }
    columns["at_prior"] = (("layer", "chain"), np.stack(at_prior))
    columns["uncertain"] = (("layer", "chain"), np.stack(uncertain))
    if log:
        columns["below_floor"] = (("layer", "chain"), _each(lambda row: np.mean(row < FLOOR), values))
    for key, q in {"q05": 0.05, "q50": 0.5, "q95": 0.95}.items():
        columns[key] = (("layer", "chain"), _each(lambda row, q=q: np.quantile(row, q, method="nearest"), values))
    columns |= {"left": ("bin", edges[:-1]), "right": ("bin", edges[1:])}
    out = xr.Dataset(columns, coords={"layer": names}).transpose("chain", "layer", "bin")
    out.attrs = carried_attrs(idata) | {"metric": metric, "label": METRICS[metric], "log": int(log)}
    return squeeze_chain(out)


def _each(summary: Callable[[np.ndarray], float], values: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Summarise the rows of each layer, (layer, chain); NaN where a layer has no weight with a posterior."""
    return np.array([[summary(row) if row.size else np.nan for row in rows] for rows in values.values()])


def _values(moments: LayerMoments, metric: str, layer: str) -> np.ndarray:
    """Return the quantity of each weight, (chain, num_weights); it means nothing where the sd is 0."""
    if metric == "signal_to_noise":
        return np.nan_to_num(metrics.signal_to_noise(moments.mean, moments.sd), nan=np.inf, posinf=np.inf)
    if metric == "contraction":
        return metrics.contraction(moments.sd, moments.prior_sd)
    sd = moments.sd if metric == "sd_to_prior" else moments.sd_conditional
    if sd is None:
        raise SchemaError(
            f"Conditional sds are needed, but the file has none for layer '{layer}': its moments were estimated from "
            "draws. Use metric='sd_to_prior'."
        )
    return sd / moments.prior_sd


def _edges(values: dict[str, list[np.ndarray]], bins: int, *, log: bool) -> np.ndarray:
    pooled = np.concatenate([row for rows in values.values() for row in rows])
    usable = pooled[np.isfinite(pooled) & ((pooled >= FLOOR) | (not log))]
    if usable.size == 0:
        return np.geomspace(FLOOR, 10, bins + 1) if log else np.linspace(0, 1, bins + 1)
    low, high = np.quantile(usable, [EDGE_SHARE, 1 - EDGE_SHARE])
    if log:
        low = FLOOR if (pooled < FLOOR).any() else low
        low, high = (max(low / 2, FLOOR), high * 2) if low == high else (low, high)
        return np.geomspace(low, high, bins + 1)
    # 0 and 1 have a meaning on every linear scale: all known, or at the prior
    return np.linspace(min(low, 0.0), max(high, 1.0), bins + 1)


def _density(values: list[np.ndarray], edges: np.ndarray, *, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return density (chain, bin) and the share beyond the edges (chain)."""
    scale = np.log10 if log else np.asarray
    # the last edge takes in what rounding of float32 moments puts a hair above it
    slack = edges.copy()
    slack[-1] = slack[-1] * (1 + 1e-6)
    counts = np.stack([np.histogram(row, bins=slack)[0] for row in values])
    share = counts / [[row.size or np.nan] for row in values]
    return share / np.diff(scale(edges)), 1 - share.sum(axis=1)
