"""Is the answer true? How far posteriors of one network agree on where the uncertainty is, and with a reference.

What they say of the function comes first: which images are uncertain, and how much. Then weight by weight, unit by
unit, layer by layer, conditional sds beside conditional ones and marginal beside marginal. A reference that is known by
draws alone cannot be matched perfectly: its own noise sets the ceiling that stands beside each correlation.

References
----------
Spearman (1904), The proof and measurement of association between two things.
Foong, Burt, Li and Turner (2020), On the expressiveness of approximate inference in Bayesian neural networks (what an
approximation says of the function is held to the exact posterior first).
Owen (2007), The pigeonhole bootstrap (intervals within one network).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import schema
from wiu_pyro.diagnostics.agreement_figures import (
    LAYER_FIGURES,
    clusters,
    function_figures,
    layer_figures,
    replicates,
)
from wiu_pyro.diagnostics.agreement_intervals import between_networks, function_intervals, layer_intervals
from wiu_pyro.diagnostics.agreement_noise import network_rank, no_noise, noise_of
from wiu_pyro.diagnostics.agreement_pairs import Member, members, pairs
from wiu_pyro.diagnostics.agreement_values import KINDS
from wiu_pyro.diagnostics.compare import check_same_observations, named_posteriors
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.metrics import FEWEST_SEEDS
from wiu_pyro.metrics.ranks import spearman

__all__ = ["agreement"]

LEVEL = 0.95
FUNCTION = ("function_rank", "function_log_ratio", "function_distance")
DESCRIPTIONS = {
    "function_rank": "rank correlation over images of the variance under the posterior",
    "function_log_ratio": "mean over images of log (variance by the first / variance by the second)",
    "function_distance": "mean over images of half the summed absolute difference of the predicted means",
    "network_rank": "rank correlation of sd / prior sd over the weights of all layers",
    "layer_rank": "rank correlation of the layers' contraction, of three layers or more",
    "weight_rank": "rank correlation of sd / prior sd over the layer's weights",
    "output_rank": "rank correlation over the layer's outputs of the mean (sd / prior sd)^2",
    "input_rank": "rank correlation over the layer's inputs of the mean (sd / prior sd)^2",
    "weight_log_ratio": "mean over the weights of log (sd by the first / sd by the second)",
    "weight_log_distance": "root mean square over the weights of that log ratio",
    "weight_distance": "root mean square over the weights of their 2-Wasserstein distance, Normals, in prior sds",
    "mean_correlation": "correlation over the weights of the posterior means / prior sd",
    "contraction": "mean over the layer's weights of 1 - sd^2 / prior sd^2",
}


def agreement(
    idatas: Mapping[str, Any] | Sequence[Any], reference: Any = None, *, num_bootstrap: int = 100
) -> xr.Dataset:
    """Return how far posteriors of one network agree on where the uncertainty is, and how far each with a reference.

    Weights held at a point estimate by one of two posteriors take no part in what they say of each other. All
    intervals are at 95 %, over all pairs and layers together. With 5 networks or more (seeds along `chain`) they are
    over the networks; within one network they come from resampling a layer's outputs and inputs at once, or over
    images, and speak of other units and images, not of another training.

    Parameters
    ----------
    idatas : mapping of str to InferenceData or DataTree, or sequence of them
        Posteriors of the same network, trained from the same seeds.
    reference : InferenceData, DataTree or str, optional
        The posterior the others are held to, for example one that `wiu_pyro.testing.nuts_posterior` made; or its name
        among `idatas`. Chains of MCMC count as one posterior.
    num_bootstrap : int
        Replicates behind each interval within one network, at least 2.

    Returns
    -------
    Dataset, dims (pair), (pair, layer), (pair, layer, kind), (pair, kind), (posterior, layer, kind)
        `pair` is ``"first ~ second"``; with a reference each posterior beside it comes first (``with_reference`` 1).
        By pair: ``function_rank``, ``function_log_ratio``, ``function_distance``, where both files hold predictions of
        the same images. By ``kind``, ``"conditional"`` or ``"marginal"``, NaN where one of the two has no such sd:
        ``network_rank``, ``layer_rank``; and by layer ``weight_rank``, ``output_rank``, ``input_rank``,
        ``weight_log_ratio``, ``weight_log_distance``, ``weight_distance``. Those by image and by layer have ``_low``
        and ``_high``; of a layer with fewer than 20 outputs or inputs in one network these are NaN. Beside a reference
        the correlations have ``_mc``, the Monte Carlo standard error of the reference's draws by a jackknife over its
        chains, and ``_ceiling``, what a perfect answer would reach (both NaN of one chain; 0 and 1 of a reference that
        is known exactly). ``mean_correlation`` tells whether two posteriors stand around one mode. By posterior:
        ``contraction`` of each layer, ``converged`` (text). Attributes: ``reference``, ``reference_function`` and
        ``reference_weights`` ("yes", "no" or "not assessed": whether it had converged there), ``reference_detail``,
        ``reference_moved`` (share of its draws that came from other copies of the mode), ``reference_chains`` (those
        pooled; 0 of a reference that is known exactly), ``num_seeds``,
        ``num_images``.

    Raises
    ------
    SchemaError
        If there are fewer than two posteriors, or they are not of the same network or images.
    DataError
        If the reference's name is unknown, or `num_bootstrap` below 2.

    Examples
    --------
    ``wiu.diagnostics.agreement({"kfac": kfac, "mean-field": mean_field}, reference=nuts)``
    """
    if num_bootstrap < 2:
        raise DataError(f"At least two bootstrap replicates are needed, got {num_bootstrap}. Leave it out for 100.")
    named, who = _with_reference(named_posteriors(idatas), reference)
    found = members(named)
    _check_images(found)
    chosen = next((one for one in found if one.name == who), None)
    beside = pairs([one for one in found if one is not chosen], chosen)
    networks = found[0].networks
    table = xr.concat([_network(beside, chosen, network) for network in range(networks)], dim="network")
    if min((num_seeds(one.idata) for one in found if not one.pooled), default=1) >= FEWEST_SEEDS:
        table = between_networks(table, (*FUNCTION, *LAYER_FIGURES), level=LEVEL)
    else:
        drawn = _drawn(beside, networks, num_bootstrap)
        table = layer_intervals(table, drawn, _fewest(beside, networks), level=LEVEL)
        table = function_intervals(table, FUNCTION, level=LEVEL)
    table = table.drop_vars([f"{name}_se" for name in FUNCTION])
    table = xr.merge([table, _by_posterior(found)])
    for name, text in DESCRIPTIONS.items():
        table[name].attrs["long_name"] = text
    table.attrs = _attrs(found, chosen)
    return table


def _with_reference(named: dict[str, Any], reference: Any) -> tuple[dict[str, Any], str]:
    """Return all posteriors by name and the reference's name; empty without one."""
    if reference is None:
        who = ""
    elif isinstance(reference, str):
        if reference not in named:
            raise DataError(f"Unknown reference '{reference}'. {near_matches(reference, named)}")
        who = reference
    else:
        base = str(schema.attrs(reference).get("approximation", "reference"))
        who = base if base not in named else f"{base} (reference)"
        named = {**named, who: reference}
    if len(named) < 2:
        raise SchemaError(
            "Two posteriors or more are needed, or one and a reference, got one. Name another, or pass reference=..."
        )
    return named, who


def _check_images(found: Sequence[Member]) -> None:
    predicting = {one.name: one.idata for one in found if one.function(0) is not None}
    labelled = {name: idata for name, idata in predicting.items() if "observed_data" in schema.groups(idata)}
    if len(labelled) > 1:
        check_same_observations(labelled)
    sizes = {one.name: len(one.function(0).variance) for one in found if one.name in predicting}
    if len(set(sizes.values())) > 1:
        raise SchemaError(
            f"Predictions are compared on the same images, but the posteriors hold {sizes}. Export all with the same "
            "data."
        )


def _network(beside: Sequence[tuple[Member, Member]], reference: Member | None, network: int) -> xr.Dataset:
    """Return the figures of one network, without intervals."""
    rows = [_pair(first, second, second is reference, network) for first, second in beside]
    names = [f"{first.name} ~ {second.name}" for first, second in beside]
    return xr.concat(rows, dim=xr.Variable("pair", names))


def _pair(first: Member, second: Member, with_reference: bool, network: int) -> xr.Dataset:
    layers = first.layers
    functions = [one.function(network) for one in (first, second)]
    figures = dict.fromkeys(FUNCTION, (np.nan, np.nan))
    if functions[0] is not None and functions[1] is not None:
        figures = function_figures(*functions)
    data: dict[str, Any] = {name: ((), value) for name, (value, _) in figures.items()}
    data |= {f"{name}_se": ((), error) for name, (_, error) in figures.items()}
    cells = {
        place: layer_figures(first.table(place[0], network), second.table(place[0], network), place[1])
        for place in product(layers, KINDS)
    }
    for name in LAYER_FIGURES:
        data[name] = (("layer", "kind"), [[cells[layer, kind][name] for kind in KINDS] for layer in layers])
    data["network_rank"] = ("kind", [network_rank(first, second, kind, network) for kind in KINDS])
    data["layer_rank"] = ("kind", [_layer_rank(first, second, kind, network) for kind in KINDS])
    data["mean_correlation"] = ("layer", [_mean_correlation(first, second, layer, network) for layer in layers])
    data |= noise_of(first, second, network) if with_reference else no_noise(len(layers))
    data |= {"first": ((), first.name), "second": ((), second.name), "with_reference": ((), int(with_reference))}
    return xr.Dataset(data, coords={"layer": layers, "kind": list(KINDS)})


def _layer_rank(first: Member, second: Member, kind: str, network: int) -> float:
    values = [[_contraction(one, layer, kind, network) for layer in first.layers] for one in (first, second)]
    usable = np.isfinite(values).all(axis=0)
    return spearman(*(np.array(row)[usable] for row in values)) if usable.sum() > 2 else float("nan")


def _contraction(member: Member, layer: str, kind: str, network: int) -> float:
    table = member.table(layer, network)
    if kind not in table.ratio or not table.known.any():
        return float("nan")
    return float(1 - np.square(table.ratio[kind][table.known], dtype=np.float64).mean())


def _mean_correlation(first: Member, second: Member, layer: str, network: int) -> float:
    tables = [one.table(layer, network) for one in (first, second)]
    one, two = (table.mean.astype(np.float64).ravel() for table in tables)
    if min(one.size, two.size) < 3 or not (np.ptp(one) and np.ptp(two)):
        return float("nan")
    return float(np.corrcoef(one, two)[0, 1])


def _fewest(beside: Sequence[tuple[Member, Member]], networks: int) -> np.ndarray:
    """Return the fewest units of each pair's layers, (network, pair, layer); 0: too few to be resampled."""
    return np.array(
        [
            [
                [clusters(first.table(layer, network), second.table(layer, network)) for layer in first.layers]
                for first, second in beside
            ]
            for network in range(networks)
        ]
    )


def _drawn(beside: Sequence[tuple[Member, Member]], networks: int, num_bootstrap: int) -> dict[Any, dict[str, Any]]:
    """Return the replicates of each network, pair, layer and kind that has any."""
    found = {}
    for network, (number, (first, second)), kind in product(range(networks), enumerate(beside), range(len(KINDS))):
        for place, layer in enumerate(first.layers):
            tables = [one.table(layer, network) for one in (first, second)]
            if clusters(*tables):
                drawn = replicates(*tables, KINDS[kind], num_bootstrap=num_bootstrap)
                if drawn:
                    found[network, number, place, kind] = drawn
    return found


def _by_posterior(found: Sequence[Member]) -> xr.Dataset:
    values = [
        [
            [np.mean([_contraction(one, layer, kind, network) for network in range(one.networks)]) for kind in KINDS]
            for layer in one.layers
        ]
        for one in found
    ]
    said = [str(schema.attrs(one.idata).get("converged", "not assessed")) for one in found]
    data = {"contraction": (("posterior", "layer", "kind"), values), "converged": ("posterior", said)}
    coords = {"posterior": [one.name for one in found], "layer": found[0].layers, "kind": list(KINDS)}
    return xr.Dataset(data, coords=coords)


def _attrs(found: Sequence[Member], reference: Member | None) -> dict[str, Any]:
    first = next((values for values in (one.function(0) for one in found) if values is not None), None)
    attrs: dict[str, Any] = {
        "level": LEVEL,
        "num_seeds": found[0].networks,
        "num_images": 0 if first is None else len(first.variance),
        "reference": "" if reference is None else reference.name,
    }
    if reference is not None:
        said = schema.attrs(reference.idata)
        overall = str(said.get("converged", "not assessed"))
        attrs |= {f"reference_{part}": str(said.get(f"converged_{part}", overall)) for part in ("function", "weights")}
        attrs["reference_detail"] = str(said.get("convergence_detail", ""))
        attrs["reference_chains"] = reference.chains if reference.pooled else 0
        attrs["reference_moved"] = float(said.get("moved_draws", 0.0))
    return attrs
