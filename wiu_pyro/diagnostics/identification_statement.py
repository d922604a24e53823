"""Which layers, units and weights the data left at the prior, in words: figures, intervals, and what they rest on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro.diagnostics.training_records import described
from wiu_pyro.diagnostics.wording import Figure, basis, closing, figures, listed, percent
from wiu_pyro.errors import SchemaError

__all__ = ["identification_statement"]

MOST_UNITS = 8  # by number in one sentence


def identification_statement(table: xr.Dataset) -> str:
    """Return which layers and units stay unidentified and what share of the weights is, in words.

    Parameters
    ----------
    table : Dataset
        What `identification` returned.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    if "unidentified" not in table or "layer_unidentified" not in table:
        raise SchemaError(
            f"A table with 'unidentified' and 'layer_unidentified' is needed, but this has {', '.join(map(str, table))}"
            ". Pass what wiu_pyro.diagnostics.identification returned."
        )
    found = figures(table, "unidentified")
    if not found:
        return "No layer has weights with a posterior that could have stayed at the prior."
    sentences = [*_layers(table, found), _shares(table, found), *_units(table)]
    if any(figure.has_interval for figure in found):
        sentences.append(basis(table))
    return " ".join(sentence for sentence in [*sentences, _estimated(table), *closing(table)] if sentence)


def _layers(table: xr.Dataset, found: list[Figure]) -> list[str]:
    named = {str(layer) for layer in table["layer"].values[table["layer_unidentified"].values == 1]}
    rule = f"no output has more than {percent(1 - table.attrs['most'])} identified weights"
    if not named:
        return ["No layer is unidentified as a whole."]
    texts = [f"'{figure.layer}' with {_share(figure)} of its weights" for figure in found if figure.layer in named]
    return [f"Unidentified as a whole, for {rule}: {listed(texts)}. {_training(table, named)}"]


def _training(table: xr.Dataset, named: set[str]) -> str:
    """Return since when the named layers have been unidentified, where the fit kept it."""
    if "unidentified_from" not in table:
        return "The fit kept no KL of its layers by epoch, so whether they were so all along is not known."
    texts = []
    for layer in table["layer"].values.tolist():
        if layer in named:
            first, throughout = (
                np.atleast_1d(table[name].sel(layer=layer).values)
                for name in ("unidentified_from", "unidentified_throughout")
            )
            since = "not at the end of it" if np.isnan(first).any() else f"from epoch {first.max():.3g} on"
            texts.append(f"'{layer}' {'throughout' if throughout.all() else since}")
    return " ".join(filter(None, [f"By the KL a weight through training: {listed(texts)}.", described(table.attrs)]))


def _shares(table: xr.Dataset, found: list[Figure]) -> str:
    """Return the share of unidentified weights, of all layers or of those with most and least."""
    ordered = sorted(found, key=lambda figure: -figure.value)
    ends = ordered if len(ordered) <= 3 else [ordered[0], ordered[-1]]
    texts = ", ".join(f"{_share(figure)} in '{figure.layer}'" for figure in ends)
    kind = "conditional" if table.attrs["sd"] == "conditional" else "marginal"
    return (
        f"Weights whose {kind} posterior is within {table.attrs['kl_below']:g} nats of the prior: {texts}"
        f"{'' if len(ordered) <= 3 else ' (most and least)'}."
    )


def _share(figure: Figure) -> str:
    missing = "" if figure.has_interval else " (no interval)"
    return f"{figure.text(percent)}{missing}"


def _units(table: xr.Dataset) -> list[str]:
    """Return how many units are unidentified, and which, where they are few, in layers that are not so as a whole."""
    sentences = []
    table = table.isel(layer=np.flatnonzero(table["layer_unidentified"].values == 0))
    for axis in ("output", "input"):
        texts = [_units_of(table.sel(layer=layer), str(layer), axis) for layer in table["layer"].values]
        texts = [text for text in texts if text]
        if texts:
            sentences.append(
                f"Unidentified {axis}s, {percent(table.attrs['most'])} of their weights and more: {listed(texts)}."
            )
    return sentences


def _units_of(row: xr.Dataset, layer: str, axis: str) -> str:
    counts = np.atleast_1d(row[f"unidentified_{axis}s"].values)
    total = np.atleast_1d(row[f"num_{axis}s"].values)
    if not counts.any() or np.isnan(counts).all():
        return ""
    if counts.size > 1:
        ends = dict.fromkeys(f"{count:.0f}" for count in (counts.min(), counts.max()))
        return f"{' to '.join(ends)} of {total.max():.0f} in '{layer}'"
    numbers = np.flatnonzero(row[f"{axis}_unidentified"].values >= row.attrs["most"])
    which = f" (number {', '.join(map(str, numbers))})" if numbers.size <= MOST_UNITS else ""
    return f"{counts[0]:.0f} of {total[0]:.0f} in '{layer}'{which}"


def _estimated(table: xr.Dataset) -> str:
    if table.attrs["moments"] == "exact":
        return ""
    return "The moments are estimated from draws, whose noise moves weights off the prior: these shares are too low."
