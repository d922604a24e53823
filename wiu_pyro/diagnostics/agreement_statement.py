"""Whether the answer is true, in words: which posteriors find the uncertainty where the reference has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro.diagnostics.wording import listed, percent
from wiu_pyro.errors import SchemaError

__all__ = ["NEAR", "Verdict", "agreement_statement", "verdicts"]

NEAR = 0.9  # share of what the reference's noise leaves to be reached, from which on a location is called right
ONE_MODE = 0.5  # correlation of posterior means, below which weights may not correspond
LEVEL = 0.95


@dataclass(frozen=True)
class Verdict:
    """What a rank correlation with the reference says of one posterior.

    Attributes
    ----------
    posterior : str
    value, low, high : float
        The correlation and its interval, of which the reference's Monte Carlo noise is a part, independent of the
        rest; where outputs and inputs cannot be resampled, that noise alone.
    ceiling : float
        What a perfect answer would reach.
    word : str
        ``"right"``: the interval lies above 90 % of the ceiling; ``"off"``: below it; ``"open"``: neither.
    """

    posterior: str
    value: float
    low: float
    high: float
    ceiling: float
    word: str

    @property
    def text(self) -> str:
        """The figure with its interval."""
        ends = f" ({_signed(self.low)} to {_signed(self.high)})" if np.isfinite(self.low) else ""
        return f"{self.posterior} {_signed(self.value)}{ends}"


def verdicts(table: xr.Dataset, name: str, **place: str) -> list[Verdict]:
    """Return what one rank correlation says of each posterior beside the reference.

    Parameters
    ----------
    table : Dataset
        What `agreement` returned, with a reference.
    name : str
        ``"function_rank"``, ``"network_rank"``, ``"weight_rank"``, ``"output_rank"`` or ``"input_rank"``.
    **place : str
        Layer and kind, where it has them.

    Returns
    -------
    list of Verdict
        Of those that have a value.
    """
    rows = table.isel(pair=np.flatnonzero(table["with_reference"].values == 1))
    found = []
    for number in range(rows.sizes["pair"]):
        row = rows.isel(pair=number).sel(place)
        value, error, ceiling = (float(row[f"{name}{end}"]) for end in ("", "_mc", "_ceiling"))
        if not np.isfinite(value):
            continue
        noise = _reach(table) * error
        below = above = 0.0
        if f"{name}_low" in row and np.isfinite(row[f"{name}_low"]):
            below, above = value - float(row[f"{name}_low"]), float(row[f"{name}_high"]) - value
        low, high = max(value - float(np.hypot(noise, below)), -1.0), min(value + float(np.hypot(noise, above)), 1.0)
        found.append(Verdict(str(row["first"].item()), value, low, high, ceiling, _word(low, high, NEAR * ceiling)))
    return found


def _reach(table: xr.Dataset) -> float:
    """Return the quantile for an error from a jackknife over the reference's few chains: Student's t."""
    chains = int(table.attrs.get("reference_chains", 0))
    return float(stats.t.isf((1 - LEVEL) / 2, chains - 1 if chains > 1 else np.inf))


def _word(low: float, high: float, limit: float) -> str:
    if not np.isfinite([low, high, limit]).all():
        return "open"
    return "right" if low >= limit else "off" if high < limit else "open"


def agreement_statement(table: xr.Dataset) -> str:
    """Return which posteriors put the uncertainty where the reference has it, or how far they agree, in words.

    A location counts as right where the interval of the rank correlation lies above 90 % of what the reference's own
    noise leaves to be reached, as off where it lies below. No claim rests on a reference that had not converged: on its
    function values for the images, on its weights for the weights.

    Parameters
    ----------
    table : Dataset
        What `agreement` returned.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    if "function_rank" not in table or "weight_rank" not in table:
        raise SchemaError(
            f"A table with 'function_rank' and 'weight_rank' is needed, but this has {', '.join(map(str, table))}. "
            "Pass what wiu_pyro.diagnostics.agreement returned."
        )
    if not table.attrs["reference"]:
        return " ".join(filter(None, [*_among(table), _apart(table), _unsettled(table)]))
    sentences = [*_function(table), *_weights(table)]
    return " ".join(part for part in [*sentences, _apart(table), _unsettled(table)] if part)


def _function(table: xr.Dataset) -> list[str]:
    name, images = table.attrs["reference"], int(table.attrs["num_images"])
    found = verdicts(table, "function_rank")
    if not found:
        return ["The files hold no predictions of the same images, so nothing is said of the function."]
    if table.attrs["reference_function"] != "yes":
        return [_no_claim(table, "function values")]
    best = found[0].ceiling
    opening = (
        f"Which of {images:,} images are uncertain, by the rank correlation of the variance with that of {name} "
        f"(a perfect answer would reach {_signed(best)})"
    )
    sentences = [_grouped(opening, found)]
    rows = table.isel(pair=np.flatnonzero(table["with_reference"].values == 1))
    sizes = []
    for number in range(rows.sizes["pair"]):
        row = rows.isel(pair=number)
        ends = [float(np.exp(row[f"function_log_ratio{end}"])) for end in ("", "_low", "_high")]
        if np.isfinite(ends[0]):
            interval = f" ({ends[1]:.2f} to {ends[2]:.2f})" if np.isfinite(ends[1]) else ""
            sizes.append(f"{row['first'].item()} {ends[0]:.2f}{interval}")
    if sizes:
        sentences.append(f"How much: its variance over {name}'s, geometric mean over images: {', '.join(sizes)}.")
    return sentences


def _no_claim(table: xr.Dataset, what: str) -> str:
    detail = str(table.attrs.get("reference_detail", "")).rstrip(".")
    reason = f" ({detail})" if detail else ""
    said = "had not converged" if "no" in _said(table) else "was not assessed for convergence"
    return f"No claim on {what}: the reference, {table.attrs['reference']}, {said} on them{reason}."


def _said(table: xr.Dataset) -> tuple[str, str]:
    return table.attrs["reference_function"], table.attrs["reference_weights"]


def _weights(table: xr.Dataset) -> list[str]:
    if table.attrs["reference_weights"] != "yes":
        return [_no_claim(table, "weights")]
    sentences, nowhere = [], []
    for kind in (str(kind) for kind in table["kind"].values):
        whole = verdicts(table, "network_rank", kind=kind)
        if not whole:
            continue
        sentences.append(_grouped(f"Which weights of the network are uncertain, by the {kind} sd", whole))
        for layer in (str(layer) for layer in table["layer"].values):
            found = verdicts(table, "weight_rank", kind=kind, layer=layer)
            if found and all(one.word == "off" for one in found):
                best = max(found, key=lambda one: one.value)
                nowhere.append(f"'{layer}' by the {kind} sd (at best {best.text}, reachable {_signed(best.ceiling)})")
            elif found:
                sentences.append(_grouped(f"Within '{layer}', {kind} sd", found))
    if nowhere:
        sentences.append(f"No posterior finds the uncertain weights within {listed(nowhere)}.")
    return [*sentences, _moved(table), _basis(table)] if sentences else []


def _moved(table: xr.Dataset) -> str:
    """Say how many of the reference's draws were in other copies of the mode than the one the posteriors stand in."""
    share = float(table.attrs.get("reference_moved", 0.0))
    return (
        f"{percent(share)} of the reference's draws lay in other copies of the mode, hidden units exchanged or their "
        "signs, and were moved to the nearest."
        if share > 0
        else ""
    )


def _grouped(opening: str, found: list[Verdict]) -> str:
    groups = {
        "right": [one.text for one in found if one.word == "right"],
        "open": [one.text for one in found if one.word == "open"],
        "off": [one.text for one in found if one.word == "off"],
    }
    words = [f"{word} {', '.join(texts)}" for word, texts in groups.items() if texts]
    return f"{opening}: {'; '.join(words)}."


def _basis(table: xr.Dataset) -> str:
    seeds = int(table.attrs["num_seeds"])
    over = f"over {seeds} networks" if seeds > 1 else "over outputs, inputs and images of this one network"
    return (
        f"In brackets: 95 % intervals {over}, widened by the reference's Monte Carlo noise; right means "
        f"above {percent(NEAR)} of what that noise leaves to be reached."
    )


def _among(table: xr.Dataset) -> list[str]:
    sentences = []
    for name, words in (("function_rank", "on which images are uncertain"), ("network_rank", "on which weights are")):
        for kind in table["kind"].values if "kind" in table[name].dims else [None]:
            values = table[name] if kind is None else table[name].sel(kind=kind)
            known = values.isel(pair=np.flatnonzero(values.notnull().values))
            if not known.size:
                continue
            least, most = (known.isel(pair=int(at)) for at in (known.argmin("pair"), known.argmax("pair")))
            what = words if kind is None else f"{words} by the {kind} sd"
            ends = f"{_signed(float(least))} ({least['pair'].item()})"
            if known.size > 1:
                ends = f"from {ends} to {_signed(float(most))} ({most['pair'].item()})"
            sentences.append(f"They agree {what} with a rank correlation {'of ' if known.size == 1 else ''}{ends}.")
    if not sentences:
        return ["No two of these posteriors have an uncertainty of the same kind that could be set side by side."]
    return [*sentences, "Which of them is true only a reference can tell."]


def _apart(table: xr.Dataset) -> str:
    """Say where posterior means hardly correlate: there weights of two posteriors may not correspond."""
    least = table["mean_correlation"].min("layer")
    places = np.flatnonzero((least < ONE_MODE).values)
    if not places.size:
        return ""
    named = [f"{least['pair'].values[at]} {_signed(float(least[at]))}" for at in places]
    return (
        f"Their means hardly correlate in some layer ({listed(named)}): they may stand around different modes, and "
        "single weights need not correspond."
    )


def _unsettled(table: xr.Dataset) -> str:
    rows = zip(table["posterior"].values.tolist(), table["converged"].values.tolist(), strict=True)
    names = [name for name, said in rows if said == "no" and name != table.attrs["reference"]]
    return f"Not converged, so at a stage of training: {', '.join(names)}." if names else ""


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")  # -0 + 0 is 0
