"""What to see in each figure, in words and numbers; and what kind of drawing it is, for a reader who cannot see it.

A kind of plot without an entry is captioned with the posterior's name alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.report.numbers import number, percent
from wiu_pyro.report.posterior import Posterior, convergence_sentence

__all__ = ["ALTS", "caption", "opening"]

SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z'“])")

ALTS = {
    "network": "The layers as boxes in the order of the data, coloured by how far the data determine their weights",
    "compare-layers": "Layers by posteriors, one mark each, in panels of conditional contraction, marginal contraction "
    "and KL per weight",
    "layer-uncertainty": "Distributions over the weights of each layer, of sd / prior sd, contraction and "
    "signal-to-noise",
    "between-layers": "Differences between the layers of each pair, with intervals, in panels of contraction, "
    "signal-to-noise, KL per weight and Cliff's delta",
    "within-layer": "Bars of the shares of each layer's spread between outputs, inputs, kernel positions and weights",
    "weight-heatmap": "Heat map of sd / prior sd, outputs by inputs",
    "input-map": "Image of the first layer's sd / prior sd at each pixel, beside the sd of the pixel over the images",
    "magnitude": "Curves of sd / prior sd over |mean| / prior sd, a panel for each layer",
    "identification": "Share of each layer's weights still at the prior, and of each unit's as a coloured strip",
    "evolution": "Curves over the epochs of each layer's size of the means, sd / prior sd and KL per weight",
    "convergence": "Heat map of layers by epochs: distance from where each layer settled, in tolerances",
    "loss": "Curve of the loss by epoch",
    "reliability": "Bars of accuracy by confidence, with the number of images below",
    "risk-coverage": "Curve of the error rate against the share of images answered",
    "declined-images": "The images declined first, with predicted class and probability",
}
ANSWERED = 0.9  # share of images at which the risk-coverage curve is read off
AT_PRIOR = 0.01


def caption(kind: str, posterior: Posterior, **options: Any) -> str:
    """Return what to see in one figure of a posterior.

    Parameters
    ----------
    kind : str
        A key of `wiu_pyro.plots.KINDS`.
    posterior : Posterior
    **options
        What the plot was drawn with.

    Returns
    -------
    str
        A sentence or two; empty for a kind nothing is known of.
    """
    return _CAPTIONS[kind](posterior, **options) if kind in _CAPTIONS else ""


def _network(posterior: Posterior) -> str:
    values, layers = posterior.like_with_like, posterior.layers
    if not np.isfinite(values).any():
        return "All layers are at their point estimate."
    ends = dict.fromkeys((int(np.nanargmin(values)), int(np.nanargmax(values))))
    words = [f"{number(values[i])} in {layers[i]}" for i in ends]
    if len(words) == 1:
        return f"The data determine its weights by {words[0]}."
    return f"The data determine least, {words[0]}, and most, {words[1]}, relative to the prior."


def _layers(posterior: Posterior) -> str:
    ratio, layers = posterior.column("sd_to_prior"), posterior.layers
    order = np.argsort(-ratio, kind="stable")  # layers at their point estimate last: NaN
    held = [layers[i] for i in order if not np.isfinite(ratio[i])]
    order = order[: len(order) - len(held)]
    if not len(order):
        return "Every weight stands at a point estimate, without an uncertainty."
    ends = order if len(order) <= 3 else order[[0, -1]]
    medians = ", ".join(f"{number(ratio[i])} in {layers[i]}" for i in ends)
    return (
        f"Median sd / prior sd: {medians}. Weights at 1 in the left panel, 0 in the middle one, are still the prior's."
        + (f" At the point estimate, without an uncertainty: {', '.join(held)}." if held else "")
    )


def _between(posterior: Posterior) -> str:
    return opening(diagnostics.between_statement(posterior.asked("between_layers")))


def _within(posterior: Posterior) -> str:
    return opening(diagnostics.within_statement(posterior.asked("within_layer")))


def opening(statement: str, sentences: int = 1) -> str:
    """Return the first sentences; the page holds the others where it answers the question."""
    return " ".join(SENTENCE.split(statement)[:sentences])


def _heatmap(posterior: Posterior, layer: str | None = None) -> str:
    one = _first(diagnostics.weight_map(posterior.idata, layer))
    across = {"outputs (rows)": float(one["output_share"]), "inputs (columns)": float(one["input_share"])}
    if not np.isfinite(list(across.values())).all():
        if one["value"].isnull().any():
            return "Blank cells are weights held at their point estimate: they have no sd."
        return "All weights of the layer have the same sd."
    most, other = sorted(across, key=lambda name: -across[name])
    rest = max(0.0, 1 - sum(across.values()))
    return (
        f"The weights differ most between {most}: {percent(across[most], 0)} of the variation; between {other} "
        f"{percent(across[other], 0)}; the rest, {percent(rest, 0)}, from weight to weight."
    )


def _input_map(posterior: Posterior) -> str:
    one = _first(diagnostics.input_map(posterior.idata))
    ratio = one["sd_to_prior"].values
    at_prior = np.abs(ratio - 1) <= AT_PRIOR
    text = (
        f"sd / prior sd is {number(np.nanmin(ratio))} at the pixel the data determine most; {int(at_prior.sum())} of "
        f"{ratio.size} pixels are within 1 % of the prior"
    )
    if "pixel_sd" not in one:
        return f"{text}."
    dead = one["pixel_sd"].values == 0
    return (
        f"{text}, among them {int((at_prior & dead).sum())} of the {int(dead.sum())} that are the same in all images."
    )


def _magnitude(posterior: Posterior) -> str:
    return opening(diagnostics.magnitude_statement(posterior.asked("magnitude")))


def _identification(posterior: Posterior) -> str:
    return opening(diagnostics.identification_statement(posterior.asked("identification")))


def _training(posterior: Posterior) -> str:
    return opening(diagnostics.convergence_statement(posterior.asked("convergence")))


def _loss(posterior: Posterior) -> str:
    verdict = convergence_sentence(posterior.attrs)
    return f"{verdict} Shaded: the last tenth of the epochs and the tenth before, each with its mean."


def _reliability(posterior: Posterior) -> str:
    one = _first(diagnostics.predictive(posterior.idata))
    count = one["bin_count"].values
    confidence = float(np.nansum(one["bin_confidence"].values * count) / count.sum())
    accuracy = float(one["accuracy"])
    word = "more often than it says" if accuracy > confidence else "less often than it says"
    if abs(accuracy - confidence) <= 2 * float(one["accuracy_se"]):
        word = "as often as it says, within two standard errors"
    return (
        f"Right in {percent(accuracy)} of images at a mean confidence of {percent(confidence)}: {word}. Bars above the "
        "diagonal are too unsure, bars below it too sure."
    )


def _risk_coverage(posterior: Posterior) -> str:
    one = _first(diagnostics.predictive(posterior.idata))
    place = int(np.abs(one["coverage"].values - ANSWERED).argmin())
    risk = one["risk"].values
    text = (
        f"Answering the surest {percent(ANSWERED, 0)} of images brings the error rate from {percent(risk[-1], 2)} to "
    )
    text += percent(risk[place], 2)
    if "point_risk" in one:
        text += f"; that of the point estimate to {percent(one['point_risk'].values[place], 2)}"
    return f"{text}."


def _declined(posterior: Posterior) -> str:
    one = _first(diagnostics.predictive(posterior.idata, num_declined=12))
    wrong = int((one["declined_label"] != one["declined_predicted"]).sum())
    share = 1 - float(one["accuracy"])
    return f"{wrong} of these {one.sizes['rank']} are classified wrong, against {percent(share)} of all images."


def _first(table: xr.Dataset) -> xr.Dataset:
    """Return the table of the first chain: the one that is drawn."""
    return table.isel(chain=0) if "chain" in table.dims else table


_CAPTIONS: dict[str, Callable[..., str]] = {
    "network": _network,
    "layer-uncertainty": _layers,
    "between-layers": _between,
    "within-layer": _within,
    "weight-heatmap": _heatmap,
    "input-map": _input_map,
    "magnitude": _magnitude,
    "identification": _identification,
    "evolution": _training,
    "convergence": _training,
    "loss": _loss,
    "reliability": _reliability,
    "risk-coverage": _risk_coverage,
    "declined-images": _declined,
}
