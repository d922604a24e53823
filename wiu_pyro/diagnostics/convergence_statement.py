"""When each layer had converged and what early stopping would have done, in words, with intervals and their basis."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.diagnostics.training_records import described
from wiu_pyro.diagnostics.wording import Figure, closing, listed, percent, percent_apart
from wiu_pyro.errors import SchemaError

__all__ = ["convergence_statement"]

NAMES = {"mean": "the size of its means", "sd": "its sd", "kl": "its KL"}


def convergence_statement(table: xr.Dataset) -> str:
    """Return when each layer had converged, and whether early stopping on the loss would have come before, in words.

    Parameters
    ----------
    table : Dataset
        What `convergence` returned.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    if "converged_epoch" not in table or "early_stop_epoch" not in table:
        raise SchemaError(
            f"A table with 'converged_epoch' and 'early_stop_epoch' is needed, but this has "
            f"{', '.join(map(str, table))}. Pass what wiu_pyro.diagnostics.convergence returned."
        )
    if not table.attrs["assessed"]:
        return (
            "Whether the layers had converged was not assessed: fewer than 10 records at the full learning rate. Train "
            "longer, or keep records more often."
        )
    sentences = [*_settled(table), *_late(table), *_tail(table), _early_stop(table), _basis(table)]
    return " ".join(filter(None, [*sentences, described(table.attrs), *closing(table)]))


def _by_chain(values: xr.DataArray) -> np.ndarray:
    """Return values (chain, layer), one row where the table has no chains."""
    return np.atleast_2d(values.transpose(..., "layer").values)


def _layers(table: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """Return the layers that were assessed in any network, with their epochs, the last to converge first."""
    epochs = _by_chain(table["converged_epoch"])
    found = [(str(name), column) for name, column in zip(table["layer"].values, epochs.T, strict=True)]
    found = [(name, column) for name, column in found if np.isfinite(column).any() or np.isinf(column).any()]
    return sorted(found, key=lambda pair: -np.nanmax(pair[1]))


def _settled(table: xr.Dataset) -> list[str]:
    full, num = table.attrs["full_rate_epochs"], table.attrs["num_epochs"]
    rule = (
        f"by mean, sd and KL staying within {percent(table.attrs['tolerance'])} of where they were at the end of the "
        f"{'full learning rate, epoch ' + _number(full) + ' of ' + _number(num) if full < num else 'training'}"
    )
    layers = _layers(table)
    done = [(name, epochs) for name, epochs in layers if not np.isinf(epochs).any()]
    never = [(name, epochs) for name, epochs in layers if np.isinf(epochs).any()]
    sentences = []
    if done:
        texts = listed([f"'{name}' from epoch {_epoch(table, name, epochs)} on" for name, epochs in done])
        sentences.append(f"Converged, {rule}: {texts}.")
    if never:
        texts = listed([f"'{name}' ({_which(table, name, epochs)})" for name, epochs in never])
        sentences.append(f"Not converged{'' if done else f', {rule}'}: {texts}.")
    return sentences


def _epoch(table: xr.Dataset, name: str, epochs: np.ndarray) -> str:
    """Write the epoch with its interval: over the seeds where the table has that, else of the networks' own."""
    row = table.sel(layer=name)
    if "seeds_converged_epoch" in table:
        value, *ends = (float(row[f"seeds_converged_epoch{end}"]) for end in ("", "_low", "_high"))
        ends[0] = max(ends[0], 1.0)
        if np.ptp(epochs) == 0:  # records apart as they are, no spread between seeds is no interval of no width
            return f"{_number(value)} (in each of {epochs.size} networks)"
    else:
        value = float(np.mean(epochs))
        ends = [float(row["converged_epoch_low"].min()), float(row["converged_epoch_high"].max())]
    return f"{_number(value)} ({_number(ends[0])} to {_number(ends[1])})"


def _number(value: float) -> str:
    if np.isinf(value):
        return "never"
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _which(table: xr.Dataset, name: str, epochs: np.ndarray) -> str:
    """Say which quantities had not settled, and in how many networks."""
    settled = table["settled_epoch"].sel(layer=name)
    moving = [
        NAMES[quantity]
        for quantity in table["quantity"].values.tolist()
        if np.isinf(settled.sel(quantity=quantity).values).any()
    ]
    number = "" if epochs.size == 1 else f" in {int(np.isinf(epochs).sum())} of {epochs.size} networks"
    return f"{' and '.join(moving)} still moved{number}"


def _late(table: xr.Dataset) -> list[str]:
    layers = _layers(table)
    if len(layers) < 2:
        return []
    late = [str(name) for name in table["layer"].values[table["late"].values == 1]]
    beyond = "what the seeds differ by" if "seeds_converged_epoch" in table else "the noise from record to record"
    if late:
        never = np.isinf(_by_chain(table["converged_epoch"].sel(layer=[late[0]]))).any()
        return [f"'{late[0]}' converged after all others{' or not at all' if never else ''}, beyond {beyond}."]
    return [f"No layer converged after all others beyond {beyond}."]


def _tail(table: xr.Dataset) -> list[str]:
    """Say which layers moved on while the learning rate fell: beyond the noise, over seeds by their interval."""
    change, low, high = _tail_changes(table)  # (quantity, layer)
    usable = np.isfinite(change) & (np.abs(change) > table.attrs["tolerance"]) & ~((low <= 0) & (high >= 0))
    if "seeds_converged_epoch" not in table:
        each = np.abs(table["tail_change"]) > table["tail_noise"]
        usable &= (each.all("chain") if "chain" in each.dims else each).transpose("quantity", "layer").values
    texts = []
    for place, layer in enumerate(table["layer"].values.tolist()):
        if usable[:, place].any():
            worst = int(np.argmax(np.where(usable[:, place], np.abs(change[:, place]), -1.0)))
            quantity = NAMES[str(table["quantity"].values[worst])].removeprefix("its ").removeprefix("the ")
            value, *ends = (float(part[worst, place]) for part in (change, low, high))
            sizes = Figure(layer, abs(value), *sorted(end if value > 0 else -end for end in ends))
            sign = "up" if value > 0 else "down"
            texts.append(f"'{layer}' ({quantity.removesuffix(' of its means')} {sign} {_by(sizes)})")
    return [f"While the learning rate fell, these moved on: {listed(texts)}."] if texts else []


def _tail_changes(table: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the changes while the rate fell, mean over the networks, with intervals over the seeds, all together."""
    each = table["tail_change"].transpose(..., "quantity", "layer").values.astype(np.float64)
    if "seeds_converged_epoch" not in table:
        mean = each.mean(axis=0) if each.ndim > 2 else each
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    found = metrics.student_intervals(each.reshape(len(each), -1))
    return tuple(part.reshape(each.shape[1:]) for part in (found.estimate, found.low, found.high))


def _by(change: Figure) -> str:
    """Write a change in percent, with its interval as plain numbers where it has one."""
    if not change.has_interval:
        return percent(change.value)
    written = percent_apart(change.low, change.high)
    return f"{written(change.value)}, {written(change.low)} to {written(change.high)}"


def _early_stop(table: xr.Dataset) -> str:
    """Say where early stopping would have stopped, and before or after which layers had converged."""
    stops = np.atleast_1d(table["early_stop_epoch"].values)
    objective = str(table.attrs.get("objective", "-ELBO")).replace("-", "−", 1)
    loss = "the validation NLL" if table.attrs["early_stop_on"] == "validation_nll" else objective
    opening = f"Early stopping on {loss} ({table.attrs['patience']} epochs without a new best)"
    stopped = np.isfinite(stops)
    if not stopped.any():
        return f"{opening} would not have stopped."
    span = dict.fromkeys(_number(stop) for stop in (stops[stopped].min(), stops[stopped].max()))
    where = f"would have stopped after epoch {' to '.join(span)}"
    where += "" if stopped.all() else f" in {int(stopped.sum())} of {stops.size} networks"
    sides: dict[str, list[str]] = {"before": [], "after": [], "about when": []}
    for name, _ in _layers(table):
        sides[_side(table, name, stops)].append(f"'{name}'")
    texts = [f"{side} {listed(names)} had converged" for side, names in sides.items() if names]
    return f"{opening} {where}: {'; '.join(texts)}."


def _side(table: xr.Dataset, name: str, stops: np.ndarray) -> str:
    """Return whether the stop comes before or after a layer's epoch in all networks, by the ends of its interval."""
    row, stops = table.sel(layer=name), np.where(np.isfinite(stops), stops, np.inf)
    low, high = (np.atleast_1d(row[f"converged_epoch_{end}"].values) for end in ("low", "high"))
    if (stops < low).all():
        return "before"
    return "after" if (stops > high).all() else "about when"


def _basis(table: xr.Dataset) -> str:
    if "seeds_converged_epoch" in table:
        return f"In brackets: 95 % intervals over {int(table.attrs['num_seeds'])} seeds, together over the layers."
    num = int(table.attrs["num_seeds"])
    return (
        f"In brackets: 95 % intervals by the noise from record to record {'of one training' if num == 1 else 'of each'}"
        ", together over the layers; whether another seed would show the same they do not say."
    )
