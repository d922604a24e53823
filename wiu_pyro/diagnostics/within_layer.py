"""Do the weights within a layer differ, and along what? Outputs, inputs, kernel positions, or from weight to weight.

References
----------
Fisher (1925), Statistical Methods for Research Workers, chapter 7 (sums of squares of a balanced crossed table).
Owen (2007), The pigeonhole bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.dead_units import dead_units
from wiu_pyro.diagnostics.factor_spectra import factor_spectra
from wiu_pyro.diagnostics.moments import layers_with_moments, refuse_improper, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.share_resampling import share_intervals
from wiu_pyro.diagnostics.units import Moments, Units, layer_units, log_signal_to_noise
from wiu_pyro.diagnostics.within_network import cluster_reason
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["PARTS", "within_layer"]

PARTS = ("output", "input", "position", "rest")
CONDITIONAL = "log_conditional_sd_to_prior"
TOLERANCE = 0.02  # of the contraction: an sd within 1 % of the prior's
MEANINGS = {
    "share": "share of the layer's spread that lies between outputs, inputs, kernel positions, and in the rest",
    "share_low": "lower end of the interval of the share",
    "share_high": "upper end of the interval of the share",
    "chance_share": "share each would have on average, were the weights shuffled",
    "spread": "sd over the layer's weights of the quantity, nats",
    "num_dead_outputs": "outputs all of whose incoming weights, bias included, are at the prior",
    "num_dead_inputs": "inputs all of whose weights are at the prior",
    "participation_ratio": "directions the curvature of one side lies in, (Σλ)² / Σλ²",
    "effective_rank": "exponential of the entropy of one side's eigenvalues",
    "num_directions": "directions there are on that side",
    "spectrum": "eigenvalues of one side by relative rank, largest first: its mean curvature relative to the prior's",
    "carried": "share of the spread of log variance that lies between the directions of one side",
}


def within_layer(
    idata: Any, *, tolerance: float = TOLERANCE, level: float = 0.95, num_bootstrap: int = 500, seed: int = 0
) -> xr.Dataset:
    r"""Return along what the uncertainty of each layer's weights differs, and which units the data say nothing about.

    The spread of a logarithm over the weights (biases apart) is split by exact sums of squares into what lies between
    output units, between inputs, between kernel positions, and the rest, which is their interactions. Logarithms of
    sd / prior sd (shares are those of the log sd where the layer's prior sd is one), of the conditional one, and of
    \|mean\| / sd, ratios below 0.001 counted as that.

    Parameters
    ----------
    idata : InferenceData or DataTree
    tolerance : float
        A weight is at the prior where its contraction lies within +/- `tolerance`, 0.02 is an sd within 1 %, and the
        square of its mean's distance from the prior's, in prior sds, below it.
    level : float
        Of each interval by itself, between 0 and 1.
    num_bootstrap : int
        Replicates of the two-way bootstrap.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Dataset, dims (quantity, layer, part) and others; with several networks also (chain)
        ``share`` (quantity, layer, part): they sum to 1 over the parts output, input, position, rest. NaN where a layer
        is no table of outputs by inputs, its weights are all alike, or some are fixed at a point estimate so that the
        table has gaps; ``share_reason`` (layer). ``share_low``, ``share_high``: over seeds (Student's t, no chain) with
        five networks or more; else within each network by a bootstrap over outputs and inputs, for layers of 20 or more
        of both, of the share that such units have beyond chance; ``interval_reason`` (layer). ``chance_share`` (layer,
        part). ``spread`` (quantity, layer). ``num_dead_outputs``, ``num_dead_inputs`` (layer): outputs all of whose
        incoming weights (bias included) are at the prior, and inputs all of whose weights in this layer are, which are
        the outgoing weights of the unit before; ``dead_outputs``, ``dead_inputs`` (layer): their indices, text with
        commas; by the conditional sd where there is one. NaN where moments were estimated from draws. Where the
        posterior has Kronecker factors: ``spectrum`` (layer, side, rank), ``participation_ratio``, ``effective_rank``,
        ``num_directions`` (layer, side), and ``carried`` (layer, carrier), plain KFAC alone: how much of the spread of
        log variance between eigendirections lies between those of the inputs, of the outputs, and in both together;
        with ``carried_low`` and so on from five networks. Attributes: ``interval``, ``interval_method``, ``level``,
        ``tolerance``, ``num_seeds``, ``dead_by`` (``"conditional"`` where the posterior has two kinds of sd),
        ``dead_mean`` (prior sds from the prior's mean).

    Raises
    ------
    DataError
        If `tolerance` or `level` is not between 0 and 1.
    SchemaError
        If no layer has a weight of outputs by inputs.

    See Also
    --------
    weight_map : The weights of one layer one by one.
    input_map : The first layer's uncertainty in image space.
    within_statement : What was found, in words.
    """
    refuse_improper(idata)
    for name, value in {"tolerance": tolerance, "level": level}.items():
        if not 0 < value < 1:
            raise DataError(f"A {name} between 0 and 1 is needed, got {value}. Leave it out for the default.")
    layers = layers_with_moments(idata)
    chains, replicates = int(schema.dataset(idata, "posterior").sizes.get("chain", 1)), num_seeds(idata)
    seeds = replicates >= FEWEST_SEEDS
    quantities = _quantities(idata, layers)
    table = _Table(quantities, layers, chains)
    for chain in range(chains):
        for place, layer in enumerate(layers):
            units = layer_units(idata, layer, chain=chain)
            if units is None:
                table.share_reason[place] = table.interval_reason[place] = cluster_reason(units)
                continue
            resampled = {} if seeds else {"level": level, "num_bootstrap": num_bootstrap, "seed": seed + place}
            table.fill(units, (chain, place), resampled=resampled)
            if schema.dataset(idata, schema.moments_group(layer)).attrs.get("moments") == "exact":
                table.fill_dead(units, (chain, place), tolerance=tolerance)
    if np.isnan(table.chance).all():
        raise SchemaError(
            "A layer with uncertain weights of outputs by inputs is needed, but there is none among: "
            f"{', '.join(layers)}. See wiu_pyro.diagnostics.weight_distribution."
        )
    out = table.dataset(level=level, seeds=seeds)
    spectra = factor_spectra(idata, layers, num_chains=chains)
    out = out if spectra is None else out.merge(_over_seeds(spectra, level=level) if seeds else spectra)
    for name, text in MEANINGS.items():
        if name in out:
            out[name].attrs["long_name"] = text
    out.attrs = carried_attrs(idata) | _said(replicates, level=level, tolerance=tolerance)
    out.attrs["dead_by"] = "conditional" if CONDITIONAL in quantities else ""
    out.attrs["dead_mean"] = tolerance**0.5
    return squeeze_chain(out)


def _over_seeds(spectra: xr.Dataset, *, level: float) -> xr.Dataset:
    """Add intervals over seeds to what the spectra say of each layer."""
    out = spectra
    for name in ("participation_ratio", "effective_rank", "carried"):
        dims, values = spectra[name].dims, spectra[name].values
        found = metrics.student_intervals(values.reshape(len(values), -1), level=level, simultaneous=False)
        for end in ("low", "high"):
            out = out.assign({f"{name}_{end}": (dims[1:], getattr(found, end).reshape(values.shape[1:]))})
    return out


def _quantities(idata: Any, layers: list[str]) -> dict[str, Callable[[Moments], np.ndarray]]:
    """Return the logarithms to split; conditional sds only where they are others than the marginal ones."""
    known: dict[str, Callable[[Moments], np.ndarray]] = {"log_sd_to_prior": _log_sd, "log_snr": log_signal_to_noise}
    groups = [schema.dataset(idata, schema.moments_group(layer)) for layer in layers]
    if any("sd_conditional" in data and not data.attrs.get("factorised", 0) for data in groups):
        known[CONDITIONAL] = _log_conditional_sd
    return known


def _log_sd(moments: Moments) -> np.ndarray:
    return _log_ratio(moments.sd, moments.prior_sd)


def _log_conditional_sd(moments: Moments) -> np.ndarray:
    if moments.sd_conditional is None:
        return np.full_like(moments.sd, np.nan)
    return _log_ratio(moments.sd_conditional, moments.prior_sd)


def _log_ratio(sd: np.ndarray, prior_sd: np.ndarray) -> np.ndarray:
    ratio = sd / prior_sd
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(ratio, out=ratio)


def _said(replicates: int, *, level: float, tolerance: float) -> dict[str, Any]:
    seeds = replicates >= FEWEST_SEEDS
    how = (
        f"over {replicates} seeds, Student's t, each interval for itself"
        if seeds
        else "two-way bootstrap over outputs and inputs within one network, each interval for itself"
    )
    return {
        "num_seeds": replicates,
        "level": level,
        "tolerance": tolerance,
        "interval": "seeds" if seeds else "within one network",
        "interval_method": how,
    }


class _Table:
    """The figures, filled layer by layer."""

    def __init__(self, quantities: dict[str, Callable[[Moments], np.ndarray]], layers: list[str], chains: int) -> None:
        self.quantities, self.layers = quantities, layers
        shape = (chains, len(quantities), len(layers), len(PARTS))
        self.share, self.low, self.high = (np.full(shape, np.nan) for _ in range(3))
        self.spread = np.full(shape[:3], np.nan)
        self.chance = np.full((len(layers), len(PARTS)), np.nan)
        self.dead_count = np.full((2, chains, len(layers)), np.nan)
        self.dead_names = np.full((2, chains, len(layers)), "", dtype=object)
        self.share_reason, self.interval_reason = [""] * len(layers), [""] * len(layers)

    def fill(self, units: Units, at: tuple[int, int], *, resampled: dict[str, Any]) -> None:
        chain, place = at
        self.interval_reason[place] = cluster_reason(units) if resampled else ""
        for number, values in enumerate(self.quantities.values()):
            balanced = _balanced(values(units.weight), units.weight.free)
            if balanced is None:
                self.share_reason[place] = "some of its weights are fixed at a point estimate"
                continue
            self.chance[place] = _chance(balanced.shape)
            where = chain, number, place
            if not np.isfinite(balanced).all():
                continue  # no conditional sd in this layer
            mean = np.float32(balanced.mean(dtype=np.float64))
            self.spread[where] = np.sqrt(np.mean([np.square(row - mean, dtype=np.float64).mean() for row in balanced]))
            self.share[where] = metrics.crossed_shares(balanced)
            if resampled and not self.interval_reason[place] and np.isfinite(self.share[where]).all():
                self.low[where], self.high[where] = share_intervals(balanced, **resampled)

    def fill_dead(self, units: Units, at: tuple[int, int], *, tolerance: float) -> None:
        found = dead_units(units, tolerance=tolerance)
        for side, places in enumerate((found.outputs, found.inputs)):
            self.dead_count[(side, *at)] = len(places)
            self.dead_names[(side, *at)] = ", ".join(map(str, places))

    def dataset(self, *, level: float, seeds: bool) -> xr.Dataset:
        dims = ("chain", "quantity", "layer", "part")
        out = xr.Dataset(
            {
                "share": (dims, self.share),
                "share_reason": ("layer", np.array(self.share_reason, dtype=str)),
                "interval_reason": ("layer", np.array(self.interval_reason, dtype=str)),
                "chance_share": (("layer", "part"), self.chance),
                "spread": (dims[:3], self.spread),
            },
            coords={"quantity": list(self.quantities), "layer": self.layers, "part": list(PARTS)},
        )
        out = out.assign_coords(chain=np.arange(len(self.share)))
        if seeds:
            found = metrics.student_intervals(self.share.reshape(len(self.share), -1), level=level, simultaneous=False)
            for name, end in {"share_low": found.low, "share_high": found.high}.items():
                out[name] = (dims[1:], np.clip(end, 0, 1).reshape(self.share.shape[1:]))
        else:
            out["share_low"], out["share_high"] = (dims, self.low), (dims, self.high)
        for side, name in enumerate(("outputs", "inputs")):
            out[f"num_dead_{name}"] = (("chain", "layer"), self.dead_count[side])
            out[f"dead_{name}"] = (("chain", "layer"), self.dead_names[side].astype(str))
        return out


def _balanced(values: np.ndarray, free: np.ndarray) -> np.ndarray | None:
    """Return the table without outputs, inputs and positions that are fixed; None where it would have gaps."""
    if free.all():
        return values
    kept = np.ix_(free.any(axis=(1, 2)), free.any(axis=(0, 2)), free.any(axis=(0, 1)))
    return values[kept] if free.any() and free[kept].all() else None


def _chance(shape: tuple[int, ...]) -> np.ndarray:
    """Return each part's degrees of freedom as a share of all: what shuffled weights would give."""
    freedom = np.array(shape, dtype=np.float64) - 1
    total = float(np.prod(shape)) - 1
    if total <= 0:
        return np.full(len(shape) + 1, np.nan)
    return np.append(freedom, total - freedom.sum()) / total
