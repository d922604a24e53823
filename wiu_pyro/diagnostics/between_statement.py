"""Whether the layers differ, in words: which pairs, by how much, with the interval, and what it rests on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro.diagnostics.provenance import convergence_note
from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["between_statement"]


def between_statement(table: xr.Dataset, metric: str = "contraction") -> str:
    """Return whether the layers differ in one metric, in words, with the figures, their intervals and caveats.

    Parameters
    ----------
    table : Dataset
        What `between_layers` returned.
    metric : str
        One of its metrics.

    Returns
    -------
    str
        Two to six sentences.

    Raises
    ------
    DataError
        If the metric is unknown.
    SchemaError
        If the table is another one.
    """
    if "difference" not in table or "pair" not in table.dims:
        raise SchemaError(
            f"A table with 'difference' over 'pair' is needed, but this has {', '.join(map(str, table.data_vars))}. "
            "Pass what wiu_pyro.diagnostics.between_layers returned."
        )
    known = table["metric"].values.tolist()
    if metric not in known:
        raise DataError(f"Unknown metric '{metric}'. {near_matches(metric, known)}")
    row = table.sel(metric=metric)
    over_seeds = table.attrs["interval"] == "seeds"
    place = _largest(row, over_seeds=over_seeds)
    sentences = [(_over_seeds if over_seeds else _within_network)(row, metric, place)]
    sentences += [_effect(table, place, metric), _inequality(table), *_caveats(table, row, metric)]
    return " ".join(sentence for sentence in sentences if sentence)


def _apart(row: xr.Dataset, *, over_seeds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs have an interval, of which some have one that leaves out zero: in every network within."""
    ends = ("seeds_low", "seeds_high") if over_seeds else ("within_low", "within_high")
    low, high = (_each(row[end]) for end in ends)  # (network, pair); one row over seeds
    known = np.isfinite(low).all(axis=0)
    return known, known & ((low > 0).all(axis=0) | (high < 0).all(axis=0))


def _largest(row: xr.Dataset, *, over_seeds: bool) -> int:
    """Return the pair to name: of the largest difference among those told apart, else with an interval, else of all."""
    known, apart = _apart(row, over_seeds=over_seeds)
    among = next((pairs for pairs in (apart, known) if pairs.any()), np.isfinite(row["difference"].values))
    return int(np.argmax(np.where(among, np.abs(row["difference"].values), -1.0)))


def _over_seeds(row: xr.Dataset, metric: str, place: int) -> str:
    known, apart = _apart(row, over_seeds=True)
    num, level = row.attrs["num_seeds"], _percent(row.attrs["level"])
    if not known.any():
        return f"No two layers have {_words(metric)} to compare."
    largest = row.isel(pair=place)
    figures = _signed(largest, float(largest["seeds_low"]), float(largest["seeds_high"]))
    if not apart.any():
        return (
            f"Over {num} seeds no two layers can be told apart by {_words(metric)}: every interval ({level}, "
            f"simultaneous over {known.sum()} pairs) holds zero. The largest difference is {figures}."
        )
    return (
        f"Over {num} seeds {_count(apart, known)} in {_words(metric)} ({level} intervals, simultaneous over the "
        f"pairs). The largest difference: {figures}."
    )


def _within_network(row: xr.Dataset, metric: str, place: int) -> str:
    num, level = row.attrs["num_seeds"], _percent(row.attrs["level"])
    inside = "Within this one network" if num == 1 else f"Within each of {num} networks"
    limit = f"Whether another training would show the same is not known: that takes {FEWEST_SEEDS} seeds."
    known, apart = _apart(row, over_seeds=False)
    if not known.any():
        return f"{inside} no pair of layers has an interval in {_words(metric)}: {_reasons(row)}. {limit}"
    low, high = (_each(row[f"within_{end}"])[:, place] for end in ("low", "high"))  # (network,)
    figures = _signed(row.isel(pair=place), float(low.min()), float(high.max()))
    text = (
        f"{inside} {_count(apart, known)} in {_words(metric)} ({level} intervals, simultaneous; two-way bootstrap over "
        f"outputs and inputs). The largest difference: {figures}."
    )
    left_out = "" if known.all() else f" No interval for {_reasons(row)}."
    return f"{text}{left_out} {limit}"


def _count(apart: np.ndarray, known: np.ndarray) -> str:
    """Return how many pairs differ, of those with an interval."""
    if known.sum() == 1:
        whose = "" if known.all() else " that has an interval"
        return f"the one pair of layers{whose} {'differs' if apart.any() else 'cannot be told apart'}"
    whose = "" if known.all() else " that have an interval"
    if not apart.any():
        return f"none of the {known.sum()} pairs of layers{whose} can be told apart"
    return f"{apart.sum()} of the {known.sum()} pairs of layers{whose} differ"


def _signed(row: xr.Dataset, low: float, high: float) -> str:
    """Return a difference the way round in which it is positive."""
    first, second = str(row["first"].item()), str(row["second"].item())
    value = float(row["difference"])
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    return f"'{first}' above '{second}' by {value:.3g} ({low:.3g} to {high:.3g})"


def _reasons(row: xr.Dataset) -> str:
    """Return which layers have no interval within the network, and why."""
    found: dict[str, list[str]] = {}
    for layer, reason in zip(row["layer"].values.tolist(), row["within_reason"].values.tolist(), strict=True):
        if reason:
            found.setdefault(reason, []).append(f"'{layer}'")
    return "; ".join(f"{', '.join(layers)} ({reason})" for reason, layers in found.items()) or "pairs without a value"


def _effect(table: xr.Dataset, place: int, metric: str) -> str:
    """Return how far the weights of the two layers of the pair named lie apart, where the metric is theirs."""
    about = {"contraction": ("contraction", "contraction"), "snr_q50": ("log_snr", "signal-to-noise")}
    if metric not in about:
        return ""
    quantity, words = about[metric]
    pair = table.isel(pair=place).sel(quantity=quantity)
    delta = float(pair["cliffs_delta"].mean())
    if not np.isfinite(delta):
        return ""
    first, second = (str(pair[name].item()) for name in ("first", "second"))
    ends = [float(pair[f"cliffs_delta_{end}"]) for end in ("low", "high") if f"cliffs_delta_{end}" in pair]
    if delta < 0:
        first, second, delta, ends = second, first, -delta, [-end for end in ends[::-1]]
    interval = f", {max(ends[0], -1):.2f} to {min(ends[1], 1):.2f}" if ends else ""
    return (
        f"Weight by weight, {words} is higher in '{first}' than in '{second}' in {_percent((1 + delta) / 2)} of all "
        f"pairs (Cliff's delta {delta:.2f}{interval})."
    )


def _inequality(table: xr.Dataset) -> str:
    parts = []
    for name, words in {"kl": "KL", "kl_per_weight": "KL a weight"}.items():
        row = table.sel(share_of=name)
        value = float(row["gini"].mean())
        if np.isfinite(value):
            ends = f" ({float(row['gini_low']):.2f} to {float(row['gini_high']):.2f})" if "gini_low" in row else ""
            parts.append(f"{value:.2f}{ends} of the {words}")
    return f"Gini coefficient over the layers, 0 even, 1 all in one: {', '.join(parts)}." if parts else ""


def _caveats(table: xr.Dataset, row: xr.Dataset, metric: str) -> list[str]:
    found = []
    if not int(row["rescaling_invariant"]):
        found.append(
            f"Scaling a ReLU layer up and the next one down changes its {_words(metric)}, not the function: take this "
            "for a statement about units."
        )
    note = convergence_note(table.attrs)
    if note.startswith("not converged"):
        found.append(f"The fit had not converged{note.removeprefix('not converged')}.")
    return found


def _each(values: xr.DataArray) -> np.ndarray:
    return values.transpose("chain", "pair").values if "chain" in values.dims else values.values[None]


def _words(metric: str) -> str:
    stem, _, quantile = metric.partition("_q")
    name = {"snr": "signal-to-noise", "kl": "KL", "kl_per_weight": "KL a weight", "mean_abs": "mean |w|"}.get(stem)
    name = name or stem.replace("_", " ")
    return {"05": f"5 % quantile of {name}", "50": f"median {name}", "95": f"95 % quantile of {name}"}.get(
        quantile, name
    )


def _percent(share: float) -> str:
    return f"{100 * float(share):.0f} %"
