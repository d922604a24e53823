"""From which epoch on each layer had converged, and whether early stopping would have stopped before it.

A learning rate that falls to zero flattens everything, converged or not. So a layer's epoch is looked for among the
epochs at the full learning rate alone, as the fit's own verdict on its loss does; what moves while the rate falls is
shown beside it.

References
----------
Prechelt (1998), Early Stopping - But When?
Wu (1986), Jackknife, Bootstrap and Other Resampling Methods in Regression Analysis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.diagnostics.moments import squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.training_loss import training_loss
from wiu_pyro.diagnostics.training_records import training_records
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.metrics import FEWEST_SEEDS
from wiu_pyro.metrics.settling import FEWEST_RECORDS

__all__ = ["QUANTITIES", "convergence"]

LEVEL = 0.95
NUM_COPIES = 1_000
QUANTITIES = {"mean": "mean_to_prior", "sd": "sd_to_prior", "kl": "kl_per_weight"}
FLOORS = {"mean": 0.01, "sd": 0.0, "kl": 0.01}  # least half width of the band: prior sds, none, nats a weight
DESCRIPTIONS = {
    "settled_epoch": "epoch from which on the quantity stays within the tolerance of its end at the full rate",
    "converged_epoch": "epoch from which on mean, sd and KL of the layer all do; inf: they never did",
    "converged_epoch_low": "lower end of its interval, by the noise from record to record",
    "converged_epoch_high": "upper end of its interval, by the noise from record to record",
    "distance": "distance from the end at the full rate, in units of the tolerance",
    "tail_change": "relative change from the end of the full rate to the end of the training",
    "tail_noise": "relative change that noise from record to record would reach by chance in one of 20 networks",
    "late": "1: the layer converged after all others, beyond the noise",
    "early_stop_epoch": "epoch after which early stopping would have stopped; none: it would not have",
    "early_stop_best": "epoch of the best loss by then",
}


def convergence(idata: Any, *, tolerance: float = 0.02, patience: int = 5) -> xr.Dataset:
    """Return the epoch from which on each layer had converged, and where early stopping would have stopped.

    Three quantities of a layer are followed: the size of its means (rms of mean - prior mean in prior sds), its sd
    (median of sd / prior sd) and its KL a weight. Each has settled from the record from which on, averaged over a tenth
    of the records around, it stays within `tolerance` of its end, relative; the end is its mean over the last tenth. It
    must do so for at least the last fifth of the records; a drift slower than that is not seen. Only records at the
    full learning rate are looked at. A mean or a KL near the prior's is within the band when it is within 0.01 prior
    sds or 0.01 nats. The layer has converged when all three have. What moves without a change of size, means that
    wander on a sphere, these do not see: ``mean_change`` of `evolution` does.

    Parameters
    ----------
    idata : InferenceData or DataTree
        From a fit with ``track=``.
    tolerance : float
        Above 0, below 1.
    patience : int
        Epochs without a new best loss before early stopping stops: on the validation NLL where the fit kept it, else
        on what was trained by, -ELBO for example.

    Returns
    -------
    Dataset, dims (layer), (quantity, layer), (quantity, epoch, layer) or, with several chains, (chain, ...)
        ``converged_epoch`` (layer) and ``settled_epoch`` (quantity, layer): epochs done, ``inf`` where never by the
        last fifth of the full-rate epochs, NaN for a layer at its point estimate, and where not assessed (fewer than 10
        records). ``converged_epoch_low`` and ``_high`` (layer): interval by the noise from record to record of one
        training, together over the layers. ``late`` (layer, never by chain): 1 where the layer converged after all
        others: over the seeds from 5 on, by paired differences that hold together, else by intervals that do not
        overlap in any network. ``seeds_converged_epoch`` (layer) with ``_low`` and ``_high`` over 5 seeds or more, a
        layer that never converged counted at the end of the full rate. ``distance`` (quantity, epoch, layer): of the
        smoothed quantity from its end, in tolerances. ``tail_change`` (quantity, layer): relative change while the
        learning rate fell, NaN where it did not; ``tail_noise``: what noise from record to record reaches by chance in
        any of them in one network of 20, no less than the 0.01 of means and KL. ``early_stop_epoch`` and
        ``early_stop_best``: epochs done.
        Attributes: ``tolerance``, ``patience``, ``early_stop_on``, ``objective`` (what the loss is),
        ``full_rate_epochs``, ``num_epochs``, ``assessed`` (1, or 0 with fewer than 10 records at the full rate),
        ``num_seeds`` and how the training was seen.

    Raises
    ------
    DataError
        If `tolerance` is not within 0 and 1, or `patience` below 1.
    SchemaError
        If the fit kept no figures of its layers, or not those needed.

    References
    ----------
    .. [1] Prechelt (1998), Early Stopping - But When?
    """
    _check(tolerance, patience)
    records = training_records(idata)
    missing = [name for name in QUANTITIES.values() if name not in records]
    if missing:
        raise SchemaError(
            f"Records of {', '.join(QUANTITIES.values())} are needed, but the file has no {', '.join(missing)}. Fit "
            'again with wiu_pyro.fit(..., track="epoch").'
        )
    table = xr.concat(
        [_network(records.isel(chain=chain), tolerance) for chain in range(records.sizes["chain"])],
        dim="chain",
        join="outer",
    )
    table = table.assign_coords(chain=np.arange(table.sizes["chain"]))
    seeds = num_seeds(idata)
    if seeds >= FEWEST_SEEDS:
        _add_seeds(table)
    table["late"] = _late(table)
    _add_early_stop(table, idata, patience)
    for name, text in DESCRIPTIONS.items():
        if name in table:
            table[name].attrs["long_name"] = text
    table.attrs = carried_attrs(idata) | dict(records.attrs) | {"tolerance": tolerance, "patience": patience}
    table.attrs |= {"num_seeds": seeds, "num_epochs": float(records["epoch"].max())}
    losses = training_loss(idata)
    table.attrs |= {"early_stop_on": _loss_name(losses), "objective": losses.attrs["objective"]}
    table.attrs["full_rate_epochs"] = float(records["full_rate_epochs"].max())
    table.attrs["assessed"] = int(bool(table["converged_epoch"].notnull().any()))
    own = records.attrs.get("tracked_curvature", "none") == "none"  # else another posterior's than the file's
    table.attrs["factorised"] = int(records.attrs.get("tracked_factorised", 0)) if own else 0
    table.attrs["tracked_data"] = float(records["tracked_data"].max())
    return squeeze_chain(table)


def _check(tolerance: float, patience: int) -> None:
    if not (0 < tolerance < 1 and patience >= 1):
        raise DataError(
            f"A tolerance between 0 and 1 and a patience of at least 1 are needed, got {tolerance} and {patience}. "
            "Leave them out for 0.02 and 5."
        )


def _network(records: xr.Dataset, tolerance: float) -> xr.Dataset:
    """Return the figures of one network that need no other."""
    records = records.isel(epoch=np.isfinite(records["loss"].values))  # a shorter run's end is filled with NaN
    epochs, layers = records["epoch"].values, records["layer"].values
    full = epochs <= float(records["full_rate_epochs"]) + 1e-9
    shape = (len(QUANTITIES), len(layers))
    settled, tail, noise = (np.full(shape, np.nan) for _ in range(3))
    distance = np.full((shape[0], len(epochs), shape[1]), np.nan)
    ends = np.full((2, len(layers)), np.nan)
    if full.sum() >= FEWEST_RECORDS:
        rng = np.random.default_rng(0)
        for place in range(len(layers)):
            copies = []
            for row, (name, variable) in enumerate(QUANTITIES.items()):
                curve = records[variable].isel(layer=place).values
                if not np.isfinite(curve).all():
                    continue
                options = {"tolerance": tolerance, "floor": FLOORS[name]}
                settled[row, place] = _epoch(metrics.settled_from(curve[full], **options), epochs[full])
                distance[row, full, place] = metrics.distance_from_end(curve[full], **options)
                tail[row, place], noise[row, place] = _tail(curve, full, floor=FLOORS[name], num_changes=noise.size)
                drawn = metrics.settled_from(metrics.noisy_copies(curve[full], NUM_COPIES, rng=rng), **options)
                copies.append(_epoch(drawn, epochs[full]))
            if copies:
                ends[:, place] = _ends(np.max(copies, axis=0), len(layers))
    known = np.isfinite(settled) | np.isinf(settled)
    converged = np.where(known.any(axis=0), np.where(known, settled, -np.inf).max(axis=0), np.nan)
    variables = {
        "settled_epoch": (("quantity", "layer"), settled),
        "converged_epoch": ("layer", converged),
        "converged_epoch_low": ("layer", np.fmin(ends[0], converged)),
        "converged_epoch_high": ("layer", np.fmax(ends[1], converged)),
        "distance": (("quantity", "epoch", "layer"), distance),
        "tail_change": (("quantity", "layer"), tail),
        "tail_noise": (("quantity", "layer"), noise),
        "last_full_epoch": ((), float(epochs[full].max()) if full.any() else np.nan),
    }
    return xr.Dataset(variables, coords={"quantity": list(QUANTITIES), "layer": layers, "epoch": epochs})


def _epoch(place: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """Return the epochs done at places of records; what is not finite stays as it is."""
    inside = np.isfinite(place)
    return np.where(inside, epochs[np.where(inside, place, 0).astype(int)], place)


def _ends(epochs: np.ndarray, num_layers: int) -> np.ndarray:
    """Return the ends of an interval that holds for all layers together, by the share of copies outside it."""
    outside = (1 - LEVEL) / (2 * num_layers)
    return np.quantile(epochs, [outside, 1 - outside], method="inverted_cdf")


def _tail(curve: np.ndarray, full: np.ndarray, *, floor: float, num_changes: int) -> tuple[float, float]:
    """Return the relative change after the full rate, and what noise, or the floor, reaches in any of so many."""
    if full.all():
        return np.nan, np.nan
    level, num, last = curve[full], max(1, int(full.sum()) // 10), max(1, len(curve) // 10)
    before = level[-num:].mean()
    if not before:
        return np.nan, np.nan
    steps = np.diff(level[len(level) // 2 :])  # of neighbours: a drift hardly enters
    error = steps.std(ddof=1) / np.sqrt(2) * np.sqrt(1 / num + 1 / last)
    reach = stats.t.isf((1 - LEVEL) / (2 * num_changes), len(steps) - 1) * error
    return float(curve[-last:].mean() / before - 1), float(max(reach, floor) / abs(before))


def _add_seeds(table: xr.Dataset) -> None:
    """Write the mean epoch over the seeds, the layers together."""
    found = metrics.student_intervals(_counted(table), level=LEVEL)
    for end, part in {"": "estimate", "_low": "low", "_high": "high"}.items():
        table[f"seeds_converged_epoch{end}"] = ("layer", getattr(found, part))


def _counted(table: xr.Dataset) -> np.ndarray:
    """Return the epochs (chain, layer), those of layers that never converged at the end of the full rate."""
    epochs, last = table["converged_epoch"].values, table["last_full_epoch"].values[:, None]
    return np.where(np.isinf(epochs), last, epochs)


def _late(table: xr.Dataset) -> xr.DataArray:
    """Return 1 for the layer that converged after all others, by its interval."""
    layers = table["layer"].values
    late = np.zeros(len(layers), dtype=np.int64)
    known = np.flatnonzero(table["converged_epoch"].notnull().all("chain").values)
    if "seeds_converged_epoch" in table and len(known) > 1:
        pairs = [(one, other) for one in known for other in known if one != other]
        epochs = _counted(table)
        differences = np.stack([epochs[:, one] - epochs[:, other] for one, other in pairs], axis=1)
        # each pair stands in both directions: as many intervals as there are pairs, each with two ends
        low = metrics.student_intervals(differences, level=1 - (1 - LEVEL) * 2).low
        for one in known:
            beside = [(end, pair[1]) for end, pair in zip(low, pairs, strict=True) if pair[0] == one]
            # a layer that never converged did so after any epoch it is counted at
            late[one] = all(
                end > 0 and not np.isinf(table["converged_epoch"].values[:, other]).any() for end, other in beside
            )
    elif len(known) > 1:
        low, high = (table[f"converged_epoch_{end}"].values for end in ("low", "high"))
        for one in known:
            others = [other for other in known if other != one]
            late[one] = bool((low[:, one] > high[:, others].max(axis=1)).all())
    return xr.DataArray(late, dims="layer", coords={"layer": layers})


def _loss_name(losses: xr.Dataset) -> str:
    return "validation_nll" if "validation_nll" in losses else "loss"


def _add_early_stop(table: xr.Dataset, idata: Any, patience: int) -> None:
    losses = training_loss(idata)
    curves = losses[_loss_name(losses)]
    curves = curves if "chain" in curves.dims else curves.expand_dims("chain")
    stops = [metrics.early_stop(curve, patience=patience) for curve in curves.transpose("chain", "epoch").values]
    table["early_stop_epoch"] = ("chain", np.array([stop.stopped + 1 for stop in stops]))
    table["early_stop_best"] = ("chain", np.array([stop.best + 1 for stop in stops]))
