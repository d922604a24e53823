"""Along what the weights within each layer differ, in words, and which units the data say nothing about."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.diagnostics.provenance import convergence_note
from wiu_pyro.diagnostics.wording import percent, percent_apart
from wiu_pyro.errors import DataError, SchemaError, near_matches

__all__ = ["MOST_LAYERS", "within_statement"]

WORDS = {
    "output": "between outputs",
    "input": "between inputs",
    "position": "between kernel positions",
    "rest": "from weight to weight",
}
QUANTITIES = {
    "log_sd_to_prior": "log sd",
    "log_conditional_sd_to_prior": "log conditional sd",
    "log_snr": "log signal-to-noise",
}
ENDS = {"low": np.min, "high": np.max}
LEAST_CHANCE = 0.02  # share by chance from which on it is said
MOST_LAYERS = 4  # described one by one
MOST_UNITS = 10  # named


def within_statement(table: xr.Dataset, quantity: str = "log_sd_to_prior") -> str:
    """Return along what each layer's weights differ, in words, with the shares, their intervals and caveats.

    A part is called a layer's largest where the intervals tell it from all others: over seeds those of the paired
    differences, together over the parts; within one network where they do not overlap.

    Parameters
    ----------
    table : Dataset
        What `within_layer` returned. Shares of several networks are averaged.
    quantity : str
        One of its quantities.

    Returns
    -------
    str
        Two to eight sentences.

    Raises
    ------
    DataError
        If the quantity is unknown.
    SchemaError
        If the table is another one.
    """
    if "share" not in table or "part" not in table.dims:
        raise SchemaError(
            f"A table with 'share' over 'part' is needed, but this has {', '.join(map(str, table.data_vars))}. "
            "Pass what wiu_pyro.diagnostics.within_layer returned."
        )
    known = table["quantity"].values.tolist()
    if quantity not in known:
        raise DataError(f"Unknown quantity '{quantity}'. {near_matches(quantity, known)}")
    rows = table.sel(quantity=quantity)
    share = _over_networks(rows["share"])
    layers = [str(layer) for layer in table["layer"].values if bool(share.sel(layer=layer).notnull().all())]
    sentences = [_largest_parts(rows, layers, quantity), *_each_layer(rows, layers), _intervals(rows, layers)]
    sentences += [_factors(table), _dead(table), *_caveats(table)]
    return " ".join(sentence for sentence in sentences if sentence)


def _over_networks(values: xr.DataArray) -> xr.DataArray:
    return values.mean("chain") if "chain" in values.dims else values


def _largest_parts(rows: xr.Dataset, layers: list[str], quantity: str) -> str:
    what = QUANTITIES.get(quantity, quantity.replace("_", " "))
    if not layers:
        return f"No layer has a {what} to split: its weights are all alike, or no table of outputs by inputs."
    tested = [layer for layer in layers if _has_interval(rows.sel(layer=layer))]
    parts = [_largest(rows.sel(layer=layer)) for layer in tested]
    counts = sorted(((parts.count(part), part) for part in set(parts) if part), reverse=True)
    found = [f"{WORDS[part]} in {count} of {len(tested)} layers" for count, part in counts]
    alike = [f"'{layer}'" for layer, part in zip(tested, parts, strict=True) if not part]
    untested = [f"'{layer}'" for layer in layers if layer not in tested]
    rest = f"; without an interval: {', '.join(untested)}" if untested else ""
    if not found:
        return f"The spread of {what} over a layer's weights has no part that is told apart as the largest{rest}."
    open_ = f"; not told apart in {', '.join(alike)}" if alike else ""
    return f"The largest part of the spread of {what} over a layer's weights lies {', '.join(found)}{open_}{rest}."


def _has_interval(row: xr.Dataset) -> bool:
    return bool(np.isfinite(row["share_low"].sel(part="rest")).all())


def _largest(row: xr.Dataset) -> str:
    """Return the part that the intervals tell apart as the largest; empty where they do not."""
    parts = [
        str(part) for part in row["part"].values if part == "rest" or float(row["chance_share"].sel(part=part)) > 0
    ]
    row = row.sel(part=parts)
    mean = _over_networks(row["share"]).values
    top = int(np.argmax(mean))
    if row.attrs["interval"] == "seeds" and len(parts) > 1:
        each = row["share"].transpose("chain", "part").values.astype(np.float64)
        apart = (
            metrics.student_intervals(np.delete(each[:, [top]] - each, top, axis=1), level=row.attrs["level"]).low > 0
        )
    else:
        low, high = row["share_low"].values, row["share_high"].values
        apart = low[..., top] > np.delete(high, top, axis=-1).max(axis=-1, initial=-1.0)
    return parts[top] if np.all(apart) else ""


def _each_layer(rows: xr.Dataset, layers: list[str]) -> list[str]:
    """Return a sentence for each of the layers of the largest spread, in the order of the network."""
    spread = _over_networks(rows["spread"]).sel(layer=layers).values
    chosen = sorted(np.argsort(-spread, kind="stable")[:MOST_LAYERS])
    found = []
    for place in chosen:
        row = rows.sel(layer=layers[place])
        share = _over_networks(row["share"])
        order = [str(share["part"].values[i]) for i in np.argsort(-share.values, kind="stable")]
        shown = [part for part in order if part != "rest" and float(row["chance_share"].sel(part=part)) > 0]
        parts = ", ".join(_part(row, part, float(share.sel(part=part))) for part in shown)
        found.append(f"'{layers[place]}': {parts}, {percent(float(share.sel(part='rest')))} {WORDS['rest']}.")
    return found


def _part(row: xr.Dataset, part: str, share: float) -> str:
    """Write a part's share, with its interval and with what chance gives where that is not next to nothing."""
    low, high = (float(reduce(row[f"share_{end}"].sel(part=part).values)) for end, reduce in ENDS.items())
    chance = float(row["chance_share"].sel(part=part))
    by_chance = f"{percent(chance)} by chance" if chance >= LEAST_CHANCE else ""
    if not np.isfinite([low, high]).all():
        return f"{percent(share)} {WORDS[part]}{f' ({by_chance})' if by_chance else ''}"
    written = percent_apart(low, high)
    inside = "; ".join(filter(None, [f"{written(low)} to {written(high)}", by_chance]))
    return f"{written(share)} {WORDS[part]} ({inside})"


def _intervals(rows: xr.Dataset, layers: list[str]) -> str:
    if not layers:
        return ""
    level, chance = percent(rows.attrs["level"]), "; by chance: what shuffled weights would show"
    chance = (
        chance if bool((rows["chance_share"].sel(layer=layers).drop_sel(part="rest") >= LEAST_CHANCE).any()) else ""
    )
    left = f"; of {len(layers)} layers the {MOST_LAYERS} of the largest spread" if len(layers) > MOST_LAYERS else ""
    if rows.attrs["interval"] == "seeds":
        return f"In brackets {level} intervals over {rows.attrs['num_seeds']} seeds, each for itself{chance}{left}."
    without = [layer for layer in layers if str(rows["interval_reason"].sel(layer=layer).item())]
    if len(without) == len(layers):
        return f"No interval within this network: {rows['interval_reason'].sel(layer=without[0]).item()}."
    return (
        f"In brackets {level} intervals of the share beyond chance, within one network (two-way bootstrap over outputs "
        f"and inputs), each for itself{chance}{left}."
    )


def _factors(table: xr.Dataset) -> str:
    if "carried" not in table:
        return ""
    carried = _over_networks(table["carried"])
    known = [layer for layer in table["layer"].values if bool(carried.sel(layer=layer).notnull().all())]
    if not known:
        return ""
    parts = []
    for layer in known[:MOST_LAYERS]:
        row, ranks = carried.sel(layer=layer), _over_networks(table["participation_ratio"]).sel(layer=layer)
        directions = _over_networks(table["num_directions"]).sel(layer=layer)
        sides = sorted(("input", "output"), key=lambda side: -float(row.sel(carrier=side)))
        shares = ", ".join(
            f"{percent(float(row.sel(carrier=side)))} {side} side{_carried(table, layer, side)}" for side in sides
        )
        lies = " and ".join(
            f"{float(ranks.sel(side=side)):.3g} of {float(directions.sel(side=side)):.0f} {side}"
            for side in ("input", "output")
        )
        parts.append(f"'{layer}' {shares}, the rest both together; curvature lies in {lies} directions")
    return f"Spread of log variance in the eigenbasis of the Kronecker factors: {'. '.join(parts)}."


def _carried(table: xr.Dataset, layer: str, side: str) -> str:
    if "carried_low" not in table:
        return ""
    low, high = (float(table[f"carried_{end}"].sel(layer=layer, carrier=side)) for end in ("low", "high"))
    low, high = max(low, 0.0), min(high, 1.0)
    written = percent_apart(low, high)
    return f" ({written(low)} to {written(high)})" if np.isfinite(low) else ""


def _dead(table: xr.Dataset) -> str:
    count = {side: table[f"num_dead_{side}"] for side in ("outputs", "inputs")}
    if not any(bool(values.notnull().any()) for values in count.values()):
        return "Units at the prior are not looked for: moments estimated from draws are too noisy."
    found = []
    for layer in table["layer"].values.tolist():
        for side in count:
            names = _names(table, side, layer)
            if any(names) and not (side == "inputs" and _feeding(table, layer)):
                found.append(
                    f"{_units(names, side)} of '{layer}'{_followed(table, layer) if side == 'outputs' else ''}"
                )
    limit = f"a contraction of {table.attrs['tolerance']:g}{_by_which_sd(table)}"
    if "dead_mean" in table.attrs:  # a table that does not say asked for the sd alone
        limit += f" or a mean {table.attrs['dead_mean']:.2g} prior sds from the prior's"
    if not found:
        return f"No unit is dead: each has weights beyond {limit}."
    return f"Dead, without a weight beyond {limit}: {'; '.join(found)}."


def _by_which_sd(table: xr.Dataset) -> str:
    """Say which sd dead units are told by, where the posterior has two; a table that does not say took the marginal."""
    if "log_conditional_sd_to_prior" not in table["quantity"].values:
        return ""
    return f" by the {table.attrs.get('dead_by') or 'marginal'} sd"


def _names(table: xr.Dataset, side: str, layer: str) -> list[str]:
    """Return the indices of a layer's dead units as written, one text a network."""
    return [str(one) for one in np.atleast_1d(table[f"dead_{side}"].sel(layer=layer).values)]


def _feeding(table: xr.Dataset, layer: str) -> str:
    """Return the layer before whose dead outputs are this one's dead inputs; empty where there is none."""
    layers = table["layer"].values.tolist()
    before = layers[layers.index(layer) - 1] if layers.index(layer) else ""
    same = before and _names(table, "outputs", before) == _names(table, "inputs", layer)
    return before if same and any(_names(table, "inputs", layer)) else ""


def _followed(table: xr.Dataset, layer: str) -> str:
    """Say of dead outputs that the next layer's weights that read them are at the prior too."""
    layers = table["layer"].values.tolist()
    after = layers[layers.index(layer) + 1 :][:1]
    return f", dead as inputs of '{after[0]}' too" if after and _feeding(table, after[0]) == layer else ""


def _units(names: list[str], side: str) -> str:
    """Return how many units are dead, and which; of several networks, whose units do not match, how many in each."""
    if len(names) > 1:
        return f"{', '.join(str(_number(one)) for one in names)} {side} (network by network)"
    places = names[0].split(", ")
    shown = ", ".join(places[:MOST_UNITS]) + (", …" if len(places) > MOST_UNITS else "")
    return f"{len(places)} {side if len(places) > 1 else side.removesuffix('s')} ({shown})"


def _number(names: str) -> int:
    return len(names.split(", ")) if names else 0


def _caveats(table: xr.Dataset) -> list[str]:
    note = convergence_note(table.attrs)
    return [f"The fit had not converged{note.removeprefix('not converged')}."] if note.startswith("not conv") else []
