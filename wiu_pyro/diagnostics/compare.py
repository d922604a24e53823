"""Do several posteriors agree on where the uncertainty is, and which predicts best? Like beside like.

Conditional standard deviations stand beside conditional ones and marginal beside marginal: a mean-field or diagonal
posterior gives about the conditional sd, a KFAC or full one both.

References
----------
Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation, section 2 (elpd, paired differences).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.layer_uncertainty import layer_uncertainty
from wiu_pyro.diagnostics.predictions import class_probabilities, log_density, observed, predictive_group
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.errors import SchemaError
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["check_same_observations", "compare", "named_posteriors"]

LAYER_COLUMNS = {
    "conditional_sd_to_prior": "median over the weights of conditional sd / prior sd",
    "conditional_contraction": "mean over the weights of 1 - conditional sd^2 / prior sd^2",
    "marginal_sd_to_prior": "median over the weights of marginal sd / prior sd; none where q factorises",
    "marginal_contraction": "mean over the weights of 1 - marginal sd^2 / prior sd^2; none where q factorises",
    "kl": "KL of the layer's marginal posterior from its prior, nats",
    "kl_per_weight": "kl / number of weights, nats",
}


def compare(idatas: Mapping[str, Any] | Sequence[Any]) -> xr.Dataset:
    """Compare posteriors of the same network: their layers, and their predictions of the same observations.

    Several chains of one file are averaged, the log density image by image: what one network drawn from such a
    posterior does on average, not the ensemble of them. Of an `AutoEnsemble` the layers are averaged over the members,
    and the predictions are those of their mixture.

    Parameters
    ----------
    idatas : mapping of str to InferenceData or DataTree, or sequence of them
        Names come from the mapping, or from the attribute ``approximation``, numbered where it repeats.

    Returns
    -------
    Dataset, dims (posterior, layer) and (posterior)
        By layer: ``conditional_sd_to_prior`` and ``conditional_contraction`` of every posterior,
        ``marginal_sd_to_prior`` and ``marginal_contraction`` where the posterior does not factorise (else NaN), ``kl``
        and ``kl_per_weight``. Where a posterior has five seeds or more, each of them with ``_low`` and ``_high``: 95 %
        over the seeds, together over the layers. By posterior: ``converged`` and ``prior`` (texts), ``factorised``,
        ``kl_total``. Where all files hold a predictive and labels: ``elpd`` (sum of log predictive densities, nats),
        ``elpd_se``, ``elpd_mean``, ``elpd_mean_se``; ``elpd_diff`` to the best and ``elpd_diff_se``, of the differences
        image by image; ``accuracy``, ``accuracy_se`` (classifiers), ``predictive`` (text: which one). Attributes:
        ``num_obs``, ``best``, and ``no_predictive``, the posteriors without one.

    Raises
    ------
    SchemaError
        If there is nothing to compare, or the observations differ.
    """
    named = named_posteriors(idatas)
    out = xr.concat([_layers(idata) for idata in named.values()], dim="posterior", join="outer", coords="minimal")
    out = out.assign_coords(posterior=list(named)).sel(layer=_layer_order(named))
    for name, text in LAYER_COLUMNS.items():
        out[name].attrs = {"long_name": text}
    said = [schema.attrs(idata) for idata in named.values()]
    for name in ("converged", "prior"):
        out[name] = ("posterior", [str(attrs.get(name, "")) for attrs in said])
    lacking = [name for name, idata in named.items() if not _predicts(idata)]
    out.attrs = {"no_predictive": ", ".join(lacking)}
    return out if lacking else _with_predictions(out, named)


def named_posteriors(idatas: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Return several posteriors by name.

    Parameters
    ----------
    idatas : mapping of str to InferenceData or DataTree, or sequence of them
        Names come from the mapping, or from the attribute ``approximation``, numbered where it repeats.

    Returns
    -------
    dict of str to InferenceData or DataTree

    Raises
    ------
    SchemaError
        If there is none, or a single one.
    """
    # an InferenceData is a mapping of its own groups: a single posterior is not a mapping of posteriors
    if hasattr(idatas, "children") or callable(getattr(idatas, "groups", None)) or len(idatas) == 0:
        raise SchemaError(
            "Several posteriors are needed, as a list or as {name: posterior}; got "
            f"{'none' if isinstance(idatas, Sequence | dict) else f'a single {type(idatas).__name__}'}. "
            "Put it into a list: compare([first, second])."
        )
    if isinstance(idatas, Mapping):
        return {str(name): idata for name, idata in idatas.items()}
    named: dict[str, Any] = {}
    for idata in idatas:
        base = str(schema.attrs(idata).get("approximation", "posterior"))
        number = sum(name == base or name.startswith(f"{base} ") for name in named)
        named[f"{base} {number + 1}" if number else base] = idata
    return named


def _layer_order(named: Mapping[str, Any]) -> list[str]:
    order: dict[str, None] = {}
    for idata in named.values():
        order |= dict.fromkeys(schema.layer_names(idata))
    return list(order)


def _layers(idata: Any) -> xr.Dataset:
    """Return the columns of one posterior by layer, chains averaged, of five seeds or more with intervals over them."""
    table = layer_uncertainty(idata)
    table = table if "chain" in table.dims else table.expand_dims("chain")
    factorised = {layer: bool(_factorised(idata, layer)) for layer in table["layer"].values.tolist()}
    uncertain = table["contraction"].notnull().any("chain").values
    flags = xr.DataArray(list(factorised.values()), dims="layer", coords={"layer": table["layer"]})
    nothing = xr.full_like(table["contraction"], np.nan)
    columns = {name: table[name] for name in ("kl", "kl_per_weight")}
    for name in ("sd_to_prior", "contraction"):
        conditional = table[f"conditional_{name}"] if f"conditional_{name}" in table else nothing
        columns[f"conditional_{name}"] = table[name].where(flags, conditional)
        columns[f"marginal_{name}"] = table[name].where(~flags)
    out = xr.Dataset({name: _mean(values) for name, values in columns.items()})
    if num_seeds(idata) >= FEWEST_SEEDS:
        out = out.assign(dict(end for name, values in columns.items() for end in _ends(name, values)))
    known = [flag for flag, own in zip(factorised.values(), uncertain, strict=True) if own]
    return out.assign(kl_total=_mean(table["kl_total"]), factorised=int(all(known)))


def _mean(values: xr.DataArray) -> xr.DataArray:
    return values.mean("chain") if "chain" in values.dims else values


def _ends(name: str, values: xr.DataArray) -> list[tuple[str, tuple[str, np.ndarray]]]:
    """Return the ends of a column's interval over the seeds, the layers together."""
    if "chain" not in values.dims:
        return []
    found = metrics.student_intervals(values.transpose("chain", "layer").values)
    return [(f"{name}_low", ("layer", found.low)), (f"{name}_high", ("layer", found.high))]


def _factorised(idata: Any, layer: str) -> int:
    return int(schema.dataset(idata, schema.moments_group(layer)).attrs.get("factorised", 0))


def _predicts(idata: Any) -> bool:
    held = schema.groups(idata)
    return "observed_data" in held and any(name.startswith("predictive_") for name in held)


def _with_predictions(table: xr.Dataset, named: Mapping[str, Any]) -> xr.Dataset:
    check_same_observations(named)
    density = np.stack([log_density(idata).mean(axis=0) for idata in named.values()])  # (posterior, N)
    totals = [metrics.sum_with_se(row) for row in density]
    means = [metrics.mean_with_se(row) for row in density]
    best = int(np.argmax([total.value for total in totals]))
    differences = [metrics.sum_with_se(row - density[best]) for row in density]
    columns = {
        "elpd": [total.value for total in totals],
        "elpd_se": [total.se for total in totals],
        "elpd_mean": [mean.value for mean in means],
        "elpd_mean_se": [mean.se for mean in means],
        "elpd_diff": [difference.value for difference in differences],
        "elpd_diff_se": [difference.se for difference in differences],
        "predictive": [predictive_group(idata)[0] for idata in named.values()],
    }
    hits = [_correct(idata) for idata in named.values()]
    if all(hit is not None for hit in hits):
        accuracies = [metrics.mean_with_se(hit) for hit in hits if hit is not None]
        columns["accuracy"] = [accuracy.value for accuracy in accuracies]
        columns["accuracy_se"] = [accuracy.se for accuracy in accuracies]
    out = table.assign({name: ("posterior", values) for name, values in columns.items()})
    out.attrs |= {"num_obs": density.shape[1], "best": list(named)[best]}
    return out


def _correct(idata: Any) -> np.ndarray | None:
    """Return for each image the share of chains that are right, or None of a regression."""
    _, data = predictive_group(idata)
    if "class" not in data.dims:
        return None
    labels = observed(idata).values
    return np.mean([metrics.correct(p, labels) for p in class_probabilities(data["mean"])], axis=0)


def check_same_observations(named: Mapping[str, Any]) -> None:
    """Check that posteriors predict the same observations.

    Parameters
    ----------
    named : mapping of str to InferenceData or DataTree

    Raises
    ------
    SchemaError
        Naming two whose labels or inputs differ.
    """
    names = list(named)
    first = observed(named[names[0]])
    for name in names[1:]:
        other = observed(named[name])
        same = first.shape == other.shape and np.array_equal(first.values, other.values)
        if not (same and _same_inputs(named[names[0]], named[name])):
            raise SchemaError(
                f"Predictions are compared on the same observations, but '{names[0]}' holds {first.size} and "
                f"'{name}' {other.size}, and their inputs or labels differ. Export both with the same data, or compare "
                "their layers alone: export without data."
            )


def _same_inputs(one: Any, other: Any) -> bool:
    """Return whether two files hold the same inputs; true where one of them holds none."""
    held = [schema.dataset(idata, "constant_data") for idata in (one, other) if "constant_data" in schema.groups(idata)]
    inputs = [data["x"].values for data in held if "x" in data]
    return len(inputs) < 2 or np.array_equal(inputs[0], inputs[1], equal_nan=True)
