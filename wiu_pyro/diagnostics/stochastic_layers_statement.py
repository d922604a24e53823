"""Is the last layer enough, in words: what `wiu_pyro.interventions.stochastic_layers` found, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.diagnostics.wording import Figure, closing, listed, percent
from wiu_pyro.errors import SchemaError

__all__ = ["METRIC_NAMES", "last_layer_set", "last_layer_statement", "stochastic_layers_statement"]

METRIC_NAMES = {
    "nll": "NLL",
    "brier": "Brier score",
    "error": "error rate",
    "ece": "calibration error",
    "squared_error": "squared error",
    "auroc_entropy": "AUROC of the entropy out of distribution",
    "auroc_mutual_information": "AUROC of the mutual information out of distribution",
}
MORE_IS_BETTER = ("auroc_entropy", "auroc_mutual_information")
TOGETHER = 0.01  # share of the variance below which an interaction is not worth a sentence
RESPONSES = {"probability": "class probabilities", "output": "outputs"}
SAME = 1e-6  # relative difference below which two posteriors give the same figures


def stochastic_layers_statement(table: xr.Dataset) -> str:
    """Return whether the last layer is enough, and which layer the variance comes from, in words.

    The last layer is said to predict better or worse than the whole posterior where the interval of the paired
    difference leaves out 0, and a layer to have the largest share where its interval lies above those of all others.

    Parameters
    ----------
    table : Dataset
        What `wiu_pyro.interventions.stochastic_layers` returned, or the same from a file.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    _check(table)
    if table.sizes["layer"] < 2:
        return _only_one(table)
    sets = table["layer_set"].values
    sentences = [*_last_layer(table), *_single_layers(table), *_effects(table), _basis(table), _refits(table, sets)]
    return " ".join(sentence for sentence in [*sentences, *closing(table)] if sentence)


def last_layer_statement(table: xr.Dataset) -> str:
    """Return whether the last layer is enough, restricted and refitted, and nothing else.

    Parameters
    ----------
    table : Dataset
        As `stochastic_layers_statement` takes it.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    _check(table)
    if table.sizes["layer"] < 2:
        return _only_one(table)
    return " ".join(sentence for sentence in [*_last_layer(table), _refits(table, [last_layer_set(table)])] if sentence)


def _check(table: xr.Dataset) -> None:
    if "variance_share" not in table or "member" not in table:
        raise SchemaError(
            "A table with 'variance_share' and 'member' is needed, but this has "
            f"{', '.join(map(str, table.data_vars))}. Pass what wiu_pyro.interventions.stochastic_layers returned."
        )


def _only_one(table: xr.Dataset) -> str:
    name = ", ".join(f"'{layer}'" for layer in table["layer"].values)
    return f"Layer {name} is the only one with a posterior: there is nothing to compare it with."


def last_layer_set(table: xr.Dataset) -> str:
    """Return the name of the set that holds the last layer alone; empty where there is none.

    Parameters
    ----------
    table : Dataset

    Returns
    -------
    str
    """
    member = table["member"].transpose("layer_set", "layer").values
    alone = np.flatnonzero((member.sum(axis=1) == 1) & (member[:, -1] == 1))
    return str(table["layer_set"].values[alone[0]]) if len(alone) and table.sizes["layer"] > 1 else ""


def _last_layer(table: xr.Dataset) -> list[str]:
    name, layer = last_layer_set(table), str(table["layer"].values[-1])
    if not name:
        return []
    one = table.sel(layer_set=name)
    known = [kind for kind in ("restricted", "refitted") if bool(one["value"].sel(kind=kind).notnull().any())]
    openings = {
        "restricted": f"With the last layer '{layer}' alone uncertain and the others put at their mean (restricted)",
        "refitted": f"Fitted to '{layer}' alone (refitted)",
    }
    sentences = []
    for kind in known:
        if kind == "refitted" and "restricted" in known and _same(one):
            sentences.append("Refitted, it is the same posterior: the layers are independent and the prior is kept.")
        else:
            sentences.append(f"{openings[kind]}, {_share(one.sel(kind=kind))}. {_scores(one.sel(kind=kind))}")
    if table.attrs.get("refitted_reason"):
        sentences.append(f"Not refitted: {table.attrs['refitted_reason']}.")
    return sentences


def _same(one: xr.Dataset) -> bool:
    pair = [one["value"].sel(kind=kind).values for kind in ("restricted", "refitted")]
    return bool(np.allclose(*pair, rtol=SAME, atol=0, equal_nan=True))


def _figure(one: xr.Dataset, name: str) -> Figure:
    return Figure("", *(float(one[f"{name}{end}"]) for end in ("", "_low", "_high")))


def _share(one: xr.Dataset) -> str:
    figure = _figure(one.sel(response="output"), "variance_share")
    text = f"the network has {figure.text(percent)} of the whole posterior's functional variance"
    if figure.low > 1:
        text += ", more than all: the layers' weights are correlated, and partly cancel"
    return text


def _scores(one: xr.Dataset) -> str:
    """Return in which metrics the set is better or worse than the whole posterior, and in which nothing shows."""
    verdicts: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for metric, words in METRIC_NAMES.items():
        if metric not in one["metric"].values:
            continue
        figure = _figure(one.sel(metric=metric), "difference")
        if not np.isfinite(figure.value):
            continue
        lost = figure.value < 0 if metric in MORE_IS_BETTER else figure.value > 0
        apart = figure.has_interval and (figure.low > 0 or figure.high < 0)
        verdicts["open" if not apart else "worse" if lost else "better"].append(f"{words} {figure.text(_signed)}")
    sentences = [
        f"It predicts {word} than the whole posterior: {listed(verdicts[word])}."
        for word in ("worse", "better")
        if verdicts[word]
    ]
    if verdicts["open"]:
        sentences.append(f"No difference beyond its interval: {listed(verdicts['open'])}.")
    return " ".join(sentences)


def _single_layers(table: xr.Dataset) -> list[str]:
    """Say which layer alone holds most of the functional variance, where the intervals tell it from the others."""
    member = table["member"].transpose("layer_set", "layer").values
    places = np.flatnonzero(member.sum(axis=1) == 1)
    if len(places) < table.sizes["layer"] or table.sizes["layer"] < 2:
        return []
    share = table.isel(layer_set=places).sel(response="output", kind="restricted")
    layers = [str(table["layer"].values[member[place].argmax()]) for place in places]
    found = [_figure(share.isel(layer_set=i), "variance_share") for i in range(len(places))]
    figures = [Figure(layer, one.value, one.low, one.high) for layer, one in zip(layers, found, strict=True)]
    figures = [one for one in figures if one.has_interval]
    top = _standing_out(figures)
    if top is None or top.layer == str(table["layer"].values[-1]):
        return []
    return [f"The layer that alone has most of the functional variance is '{top.layer}': {top.text(percent)}."]


def _standing_out(figures: list[Figure]) -> Figure | None:
    """Return the figure whose interval lies above those of all others."""
    if len(figures) < 2:
        return None
    ordered = sorted(figures, key=lambda one: -one.value)
    return ordered[0] if ordered[0].low > max(one.high for one in ordered[1:]) else None


def _effects(table: xr.Dataset) -> list[str]:
    if "effect_share" not in table:
        reason = table.attrs.get("effects_reason")
        return [f"The layers' shares of the variance are not known: {reason}."] if reason else []
    response = str(table["response"].values[0])
    one = table.sel(response=response)
    layers = [str(layer) for layer in table["layer"].values]
    shapley = one.sel(effect="shapley")
    figures = [
        Figure(layer, *(float(shapley[f"effect_{end}"].sel(layer=layer)) for end in ("share", "low", "high")))
        for layer in layers
    ]
    figures = sorted((one for one in figures if np.isfinite(one.value)), key=lambda one: -one.value)
    if not figures:
        return []
    texts = listed([f"{figure.text(percent)} '{figure.layer}'" for figure in figures])
    top = _standing_out(figures)
    opening = (
        f"comes most from layer '{top.layer}'"
        if top is not None
        else "comes from no layer shown to have the most of it"
    )
    sentences = [f"The variance of the {RESPONSES[response]} {opening} (Shapley effects: {texts})."]
    together = [figure for figure in _interactions(one) if figure.low > 0 and figure.value > TOGETHER]
    if together:
        most = max(together, key=lambda figure: figure.value)
        parts = one["effect_share"].sel(layer=most.layer)
        own = f"{percent(float(parts.sel(effect='first_order')))} without the others"
        whole = f"{percent(float(parts.sel(effect='total')))} with them"
        sentences.append(
            f"Layers act together: '{most.layer}' accounts for {own} and {whole}; interactions hold "
            f"{most.text(percent)}."
        )
    return sentences


def _interactions(one: xr.Dataset) -> list[Figure]:
    """Return by how much each layer's total effect is above its first-order one, together over the layers."""
    layers = [str(layer) for layer in one["layer"].values]
    level = float(one.attrs["level"])
    if one.attrs["effect_interval"] == "seeds" and "effect_by_chain" in one:
        shares = one["effect_by_chain"].transpose("chain", ..., "layer")
        each = (shares.sel(effect="total") - shares.sel(effect="first_order")).values.astype(np.float64)
        found = metrics.student_intervals(each, level=level)
        return [Figure(*row) for row in zip(layers, found.estimate, found.low, found.high, strict=True)]
    value = (one["effect_share"].sel(effect="total") - one["effect_share"].sel(effect="first_order")).values
    error = np.sqrt(np.square(one["effect_se"].sel(effect=["total", "first_order"])).sum("effect")).values
    # as if both errors were independent: wider than they are where one draw moves both alike
    reach = float(stats.norm.isf((1 - level) / (2 * len(layers)))) * error
    return [Figure(*row) for row in zip(layers, value, value - reach, value + reach, strict=True)]


def _basis(table: xr.Dataset) -> str:
    level, num = percent(table.attrs["level"]), int(table.attrs["num_seeds"])
    draws = f"; those of effects over {table.attrs['effect_draws']} pairs of draws" if "effect_share" in table else ""
    if table.attrs["interval"] == "seeds":
        return f"In brackets: {level} intervals over {num} seeds, simultaneous over the sets or layers compared."
    network = "one network" if num == 1 else f"the mean of {num} networks"
    return (
        f"In brackets: {level} intervals for {network}, over {table.attrs['num_images']} images, paired and "
        f"simultaneous over the sets{draws}; whether another seed would show the same they do not say."
    )


def _refits(table: xr.Dataset, sets: Sequence[str]) -> str:
    open_ = (table["refit_converged"] == 0).any("chain")
    names = [str(name) for name in table["layer_set"].values[open_.values] if name in sets]
    sentences = [f"Refits that had not converged: {listed(names)}."] if names else []
    trained = table.attrs.get("curvature") == "none" and bool(table["value"].sel(kind="refitted").notnull().any())
    unknown = (table["refit_converged"] == -1).any("chain") & table["layer_set"].isin(sets)
    parts = table["member"].any("layer") & ~table["member"].all("layer")  # none and all are not trained again
    if trained and bool((unknown & parts).any()):
        sentences.append("Refits were too short for their convergence to be assessed.")
    return " ".join(sentences)


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value else "0"
