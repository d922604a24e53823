"""The columns of the layer table: what each is called in a table, its unit, and what it means in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wiu_pyro.report.posterior import Posterior

__all__ = ["COLUMNS", "SHORT_COLUMNS", "Column", "columns_of", "layer_rows"]


@dataclass(frozen=True)
class Column:
    """One column of the layer table.

    Parameters
    ----------
    name : str
        Its name in the Dataset and in JSON.
    title : str
        Its heading on the page, with the unit where it has one.
    meaning : str
        One or two sentences for a reader who sees it for the first time.
    """

    name: str
    title: str
    meaning: str


COLUMNS = (
    Column("num_weights", "weights", "Number of weights and biases of the layer."),
    Column(
        "num_uncertain",
        "with a posterior",
        "Those of them that have a posterior; the others are held at their point estimate and are left out of all "
        "other columns but the mean size. A layer without any has no figures of uncertainty.",
    ),
    Column(
        "contraction",
        "contraction",
        "1 − variance / prior variance, averaged over the layer's weights: the share of the prior variance that the "
        "data remove. 0: still the prior; 1: fully determined. Unchanged when layers are rescaled together with their "
        "priors.",
    ),
    Column(
        "conditional_contraction",
        "conditional contraction",
        "Contraction by the conditional variance, that of a weight when all others are known: the figure to hold "
        "beside a factorised posterior's contraction.",
    ),
    Column(
        "sd_to_prior",
        "sd / prior sd",
        "Median over the layer's weights of posterior sd / prior sd, without a unit: 1 where the data say nothing, "
        "near 0 where they decide.",
    ),
    Column(
        "conditional_sd_to_prior",
        "conditional sd / prior sd",
        "The same by the conditional sd, that of a weight when all others are known.",
    ),
    Column(
        "effective_parameters",
        "effective parameters",
        "Sum of 1 − marginal variance / prior variance over the layer: how many of its weights the data determine. "
        "Given only for posteriors with correlations.",
    ),
    Column(
        "contraction_sum",
        "contraction sum",
        "The same sum for a factorised posterior, whose variances are about conditional ones. It counts each weight "
        "as if all others were known, comes out larger, and must not be read as a number of effective parameters.",
    ),
    Column(
        "effective_share",
        "share of the sum",
        "The layer's part in the network's sum of effective parameters (or of the contraction sum).",
    ),
    Column(
        "snr_q50",
        "|mean| / sd",
        "Signal-to-noise ratio of a weight, without a unit: median over the layer's weights, and 5 % to 95 % quantile. "
        "Below 1, a weight can hardly be told from zero.",
    ),
    Column("kl", "KL, nats", "Divergence of the layer's posterior from its prior in nats: a sum over the layer."),
    Column("kl_se", "± KL, nats", "Standard error of the KL, where it comes by draws."),
    Column("kl_per_weight", "KL / weight, nats", "The same per weight, so that layers of different size compare."),
    Column("kl_share", "share of KL", "The layer's part in the KL of the whole posterior."),
    Column(
        "sd_q50",
        "sd",
        "Posterior sd in units of the weight: median over the layer's weights, and 5 % to 95 % quantile. Not "
        "comparable between layers: scaling one ReLU layer up and the next down changes it, but not the function.",
    ),
    Column("mean_abs", "mean |w|", "Mean size of a weight's posterior mean, in units of the weight."),
)

# What a terminal shows unless asked for all
SHORT_COLUMNS = (
    "num_weights",
    "num_uncertain",
    "sd_to_prior",
    "snr_q50",
    "contraction",
    "kl_per_weight",
    "effective_parameters",
    "contraction_sum",
    "effective_share",
)


def columns_of(posterior: Posterior, names: Sequence[str] | None = None) -> list[Column]:
    """Return the columns a posterior's layer table has, in reading order, perhaps only those named."""
    known = {column.name: column for column in COLUMNS}
    if names is None:
        rest = [str(name) for name in posterior.table.data_vars if name not in known]
        names = [*known, *(name for name in rest if posterior.table[name].dtype.kind in "fiu")]
    present = [name for name in names if name in posterior.table and "layer" in posterior.table[name].dims]
    return [known.get(name, Column(name, name.replace("_", " "), "")) for name in present]


def layer_rows(posterior: Posterior, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the layer table as rows of values by column name, the layer's name first."""
    columns = [column.name for column in columns_of(posterior, names)]
    values = {name: posterior.column(name) for name in columns}
    return [
        {"layer": layer} | {name: values[name][i].item() for name in columns}
        for i, layer in enumerate(posterior.layers)
    ]
