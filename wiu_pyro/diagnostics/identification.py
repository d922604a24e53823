"""Which weights, units and layers stay unidentified: where the posterior is still the prior.

A weight is unidentified where the KL of its posterior from its prior is small: at 0.01 nats nobody who is shown a value
could tell from which of the two it was drawn more often than in 54 of 100 guesses (Pinsker's inequality).

References
----------
Pinsker (1964), Information and information stability of random variables and processes.
Owen (2007), The pigeonhole bootstrap (intervals within one network).
Trippe and Turner (2018), Overpruning in variational Bayesian neural networks (units that return to the prior).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.identified_cells import Limits, Tally, tallied
from wiu_pyro.diagnostics.moments import layers_with_moments, refuse_improper, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.sd_kinds import check_sd, is_factorised
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.training_records import training_records
from wiu_pyro.diagnostics.units import layer_units, pooled_moments
from wiu_pyro.diagnostics.within_network import FEWEST_CLUSTERS
from wiu_pyro.errors import DataError
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["identification"]

LEVEL = 0.95
NUM_BOOTSTRAP = 400
KEPT = "kl_per_weight"  # of group training
SHARES = ("unidentified", "at_prior")
DESCRIPTIONS = {
    "num_weights": "weights of the layer that have a posterior, biases among them",
    "num_left_out": "those left out: fixed at a point estimate, or not finite",
    "unidentified": "share of the weights whose KL from the prior is below the limit",
    "at_prior": "share of the weights whose mean and sd are both near the prior's",
    "kl_q50": "median over the weights of the KL from the prior, nats",
    "layer_unidentified": "1: the layer as a whole is unidentified",
    "num_outputs": "outputs of the layer that have weights with a posterior",
    "unidentified_outputs": "outputs of whose weights nearly all are unidentified",
    "num_inputs": "inputs of the layer that have weights with a posterior",
    "unidentified_inputs": "inputs of whose weights nearly all are unidentified",
    "unidentified_from": "epoch from which on the layer's KL a weight stayed below the limit; none: it did not",
}


def identification(
    idata: Any, *, sd: str = "marginal", within: float = 0.05, kl_below: float = 0.01, most: float = 0.95
) -> xr.Dataset:
    r"""Return the share of weights that the data left at the prior, by layer, by output and by input.

    Two measures stand side by side. ``unidentified``: the KL of the weight's posterior from its prior, both taken as
    Normal, is at most `kl_below`; it stays the same under any change of the weight's scale. ``at_prior``: \|sd -
    prior sd\| and \|mean - prior mean\| are both at most `within` prior sds. A weight at the prior by its marginal sd
    can still be tied to others by the data; the conditional sd says whether it is. Weights at a point estimate (sd 0)
    are left out.

    A unit is named where at least the share `most` of its weights is unidentified: an output by its incoming weights
    and its bias, an input by those it feeds. A layer is named where every output is (a few units with all the
    information are enough for a network to work), and where the lower end of its share's interval is at least `most`:
    over the seeds from 5 on, else within each network, by resampling outputs and inputs (95 %, together over the
    layers); where there are fewer than 20 of either, and so no interval, the share itself has to be.

    Parameters
    ----------
    idata : InferenceData or DataTree
    sd : str
        ``"marginal"``, or ``"conditional"`` to stand beside a posterior that factorises.
    within : float
        In prior sds, above 0.
    kl_below : float
        Nats, above 0.
    most : float
        Above 0.5, at most 1.

    Returns
    -------
    Dataset, dims (layer), (layer, output), (layer, input) or, with several chains, (chain, ...)
        ``unidentified`` and ``at_prior`` with ``_low`` and ``_high``; ``kl_q50``, nats; ``num_weights``,
        ``num_left_out``, ``num_outputs``, ``num_inputs``, ``unidentified_outputs``, ``unidentified_inputs`` (counts);
        ``output_unidentified`` (layer, output) and ``input_unidentified`` (layer, input): share of each unit, NaN
        beyond a layer's last; units of two networks do not correspond. ``layer_unidentified`` (layer, never by chain):
        1 or 0. With 5 seeds or more ``seeds_unidentified``, ``seeds_at_prior`` (layer) with ``_low`` and ``_high``.
        Where the fit kept the KL of the layers by epoch (``kl_per_weight`` of group ``training``):
        ``unidentified_from``, the epoch, counted from 1, from which on it stayed at or below `kl_below` to the end, NaN
        where it did not, and ``unidentified_throughout``, 1 where it was at every epoch. Attributes: ``sd``,
        ``within``, ``kl_below``, ``most``, ``factorised``, ``moments``, ``num_seeds``, ``training`` (what was kept).

    Raises
    ------
    DataError
        If `sd` is unknown or a limit is out of its range.
    SchemaError
        If the file holds no moments, or no conditional ones and they are asked for.

    References
    ----------
    .. [1] Owen (2007), The pigeonhole bootstrap, section 3.
    .. [2] Trippe and Turner (2018), Overpruning in variational Bayesian neural networks.
    """
    refuse_improper(idata)
    _check_limits(within, kl_below, most)
    names = layers_with_moments(idata)
    check_sd(idata, names, sd)
    limits = Limits(sd == "conditional", within, kl_below)
    networks = range(schema.dataset(idata, schema.moments_group(names[0])).sizes["chain"])
    found = {place: _layer(idata, *place, limits=limits, most=most) for place in product(networks, names)}
    rows = [xr.concat([found[chain, name][0] for chain in networks], dim="chain") for name in names]
    table = xr.concat(rows, dim=xr.Variable("layer", names), join="outer").transpose("chain", "layer", ...)
    table = table.assign_coords({dim: np.arange(table.sizes[dim]) for dim in ("output", "input")})
    for name in (name for name in table.data_vars if str(name).endswith(("puts", "weights"))):
        if bool(table[name].notnull().all()):
            table[name] = table[name].astype(np.int64)
    for chain in networks:
        _add_intervals(table, chain, [found[chain, name][1] for name in names])
    seeds = num_seeds(idata)
    if seeds >= FEWEST_SEEDS:
        _add_seeds(table)
    table["layer_unidentified"] = _named(table, most)
    kept = _add_training(table, idata, kl_below)
    for name, text in DESCRIPTIONS.items():
        if name in table:
            table[name].attrs["long_name"] = text
    table.attrs = carried_attrs(idata) | {"sd": sd, "within": within, "kl_below": kl_below, "most": most}
    table.attrs |= {"factorised": int(is_factorised(idata, names)), "moments": _moments_kind(idata, names)}
    table.attrs |= {"num_seeds": seeds, **kept}
    return squeeze_chain(table)


def _check_limits(within: float, kl_below: float, most: float) -> None:
    if not (within > 0 and kl_below > 0 and 0.5 < most <= 1):
        raise DataError(
            "Limits within > 0, kl_below > 0 and 0.5 < most <= 1 are needed, but they are "
            f"within={within}, kl_below={kl_below}, most={most}. Leave them out for 0.05, 0.01 nats and 0.95."
        )


def _layer(
    idata: Any, chain: int, layer: str, *, limits: Limits, most: float
) -> tuple[xr.Dataset, dict[str, np.ndarray]]:
    """Return the figures of one layer of one network, and bootstrap replicates of its shares where it has some."""
    units = layer_units(idata, layer, chain=chain)
    if units is None:
        tallies = [tallied(moments, limits) for moments in pooled_moments(idata, layer, chain=chain)]
        return _figures(tallies, {}, most), {}
    weight, *bias = (tallied(part, limits) for part in (units.weight, units.bias) if part is not None)
    return _figures([weight, *bias], _unit_shares(weight, bias), most), _replicates(weight, bias)


def _figures(tallies: list[Tally], units: dict[str, np.ndarray], most: float) -> xr.Dataset:
    known = int(sum(np.sum(tally.known, dtype=np.float64) for tally in tallies))
    kl = np.concatenate([tally.kl for tally in tallies])
    figures: dict[str, Any] = {"num_weights": known, "num_left_out": sum(tally.size for tally in tallies) - known}
    figures["kl_q50"] = float(np.median(kl)) if known else np.nan
    for name in SHARES:
        count = sum(float(np.sum(getattr(tally, name), dtype=np.float64)) for tally in tallies)
        figures[name] = count / known if known else np.nan
    out = xr.Dataset({name: ((), value) for name, value in figures.items()})
    for axis in ("output", "input"):
        shares = units.get(axis, np.full(1, np.nan))
        out[f"num_{axis}s"] = float(np.sum(np.isfinite(shares))) if units else np.nan
        out[f"unidentified_{axis}s"] = float(np.sum(shares >= most)) if units else np.nan
        out = out.assign_coords({axis: np.arange(shares.size)}).assign({f"{axis}_unidentified": (axis, shares)})
    return out


def _unit_shares(weight: Tally, bias: list[Tally]) -> dict[str, np.ndarray]:
    """Return the share of unidentified weights of each output, its bias among them, and of each input."""
    found = {}
    for axis, name in ((1, "output"), (0, "input")):
        own = [part[:, 0] for tally in bias for part in (tally.unidentified, tally.known)] if axis else []
        over, under = (part.sum(axis=axis, dtype=np.float64) for part in (weight.unidentified, weight.known))
        over, under = (over + own[0], under + own[1]) if own else (over, under)
        found[name] = np.divide(over, under, out=np.full(under.shape, np.nan), where=under > 0)
    return found


def _replicates(weight: Tally, bias: list[Tally]) -> dict[str, np.ndarray]:
    """Return replicates of the shares, (NUM_BOOTSTRAP,); none with too few outputs or inputs."""
    with_weights = [int(np.count_nonzero(weight.known.any(axis=axis))) for axis in (1, 0)]
    if min(with_weights) < FEWEST_CLUSTERS:
        return {}
    outputs, inputs = weight.known.shape
    rng = np.random.default_rng(0)
    rows, columns = (metrics.pigeonhole_counts(size, NUM_BOOTSTRAP, rng=rng) for size in (outputs, inputs))
    sums = {
        name: metrics.pigeonhole_sums(getattr(weight, name), rows, columns)
        + sum(getattr(tally, name)[:, 0] @ rows for tally in bias)
        for name in ("known", *SHARES)
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: sums[name] / sums["known"] for name in SHARES}


def _add_intervals(table: xr.Dataset, chain: int, drawn: list[dict[str, np.ndarray]]) -> None:
    """Write the intervals of the shares within one network, the layers together."""
    clusters = np.fmin(table["num_outputs"], table["num_inputs"]).isel(chain=chain).values
    nothing = np.full(NUM_BOOTSTRAP, np.nan)
    for name in SHARES:
        found = metrics.bootstrap_intervals(
            table[name].isel(chain=chain).values,
            np.stack([each.get(name, nothing) for each in drawn], axis=1),
            level=LEVEL,
            num_clusters=np.fmax(clusters, 2),
        )
        for end in ("low", "high"):
            if f"{name}_{end}" not in table:
                table[f"{name}_{end}"] = xr.full_like(table[name], np.nan)
            table[f"{name}_{end}"].values[chain] = np.clip(getattr(found, end), 0, 1)


def _add_seeds(table: xr.Dataset) -> None:
    """Write means and intervals of the shares over the seeds, the layers together."""
    for name in SHARES:
        found = metrics.student_intervals(table[name].values, level=LEVEL)
        for end, part in {"": "estimate", "_low": "low", "_high": "high"}.items():
            table[f"seeds_{name}{end}"] = ("layer", np.clip(getattr(found, part), 0, 1))


def _named(table: xr.Dataset, most: float) -> xr.DataArray:
    """Return 1 for each layer that is unidentified as a whole: all its outputs, and its share by the interval."""
    if "seeds_unidentified_low" in table:
        low = table["seeds_unidentified_low"].fillna(table["seeds_unidentified"])
    else:
        low = table["unidentified_low"].fillna(table["unidentified"]).min("chain", skipna=False)
    units = table["num_outputs"].isnull() | (table["unidentified_outputs"] == table["num_outputs"])
    return ((low >= most) & units.all("chain")).astype(np.int64)


def _add_training(table: xr.Dataset, idata: Any, kl_below: float) -> dict[str, Any]:
    """Write from which epoch on each layer was unidentified, where the fit kept it; return what the fit kept."""
    held = schema.dataset(idata, "training") if "training" in schema.groups(idata) else xr.Dataset()
    if KEPT not in held:
        return {"training": "loss only" if "loss" in held else "nothing"}
    records = training_records(idata)
    values = records[KEPT].transpose("chain", "layer", "epoch").reindex(layer=table["layer"].values).values
    ended = ~np.isfinite(values).any(axis=1, keepdims=True)  # epochs that a shorter run did not have
    within = (values <= kl_below) | ended
    num = values.shape[-1]
    first = num - np.cumprod(within[..., ::-1], axis=-1).sum(axis=-1)  # first of the records at the end that are
    last = num - np.cumprod(np.broadcast_to(ended, values.shape)[..., ::-1], axis=-1).sum(axis=-1)
    epochs = np.append(records["epoch"].values.astype(np.float64), np.nan)
    table["unidentified_from"] = (("chain", "layer"), np.where(first < last, epochs[first], np.nan))
    table["unidentified_throughout"] = (("chain", "layer"), within.all(axis=-1).astype(np.int64))
    about = {"training": KEPT, **records.attrs}
    return about | ({"tracked_data": float(records["tracked_data"].max())} if "tracked_data" in records else {})


def _moments_kind(idata: Any, names: list[str]) -> str:
    kinds = {str(schema.dataset(idata, schema.moments_group(name)).attrs.get("moments", "")) for name in names}
    return "exact" if kinds == {"exact"} else "estimated"
