"""The layer table: how uncertain is each layer, and how far the layers differ.

Read from exact moments, not from draws, wherever the posterior has a closed form. Beside the raw standard deviation,
which is not comparable between layers, stand the quantities that survive rescaling a layer together with its prior.

References
----------
MacKay (1992), Bayesian Interpolation, eq. 4.9 (effective number of parameters).
Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1 (signal-to-noise).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.moments import LayerMoments, layer_moments, layers_with_moments, squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs

__all__ = ["layer_uncertainty"]

DESCRIPTIONS = {
    "num_weights": "weights, biases and other parameters of the layer",
    "num_uncertain": "those of them that have a posterior; the others are held at their point estimate",
    "mean_abs": "mean of |posterior mean|, units of the weight",
    "sd_q05": "5 % quantile over the weights of the posterior sd, units of the weight",
    "sd_q50": "median over the weights of the posterior sd, units of the weight",
    "sd_q95": "95 % quantile over the weights of the posterior sd, units of the weight",
    "sd_to_prior": "median over the weights of sd / prior sd",
    "snr_q05": "5 % quantile over the weights of |mean| / sd",
    "snr_q50": "median over the weights of |mean| / sd",
    "snr_q95": "95 % quantile over the weights of |mean| / sd",
    "contraction": "mean over the weights of 1 - sd^2 / prior sd^2",
    "conditional_sd_to_prior": "median over the weights of conditional sd / prior sd",
    "conditional_contraction": "mean over the weights of 1 - conditional sd^2 / prior sd^2",
    "effective_parameters": "sum over the weights of 1 - marginal variance / prior variance",
    "contraction_sum": "sum over the weights of 1 - variance / prior variance, of a factorised posterior",
    "effective_share": "share of the layer in the network's effective_parameters (or contraction_sum)",
    "kl": "KL of the layer's marginal posterior from its prior, nats",
    "kl_se": "standard error of kl, where it comes by draws, nats",
    "kl_per_weight": "kl / number of weights that have a posterior, nats",
    "kl_share": "kl / kl_total",
    "kl_total": "KL of the whole posterior from the prior, nats",
    "kl_between_layers": "kl_total minus the layers' sum: dependence between layers, nats",
}
RELATIVE = ("sd_to_prior", "contraction", "effective_parameters", "contraction_sum", "effective_share")
IMPROPER = "the prior is improper and has no sd to compare with"


def layer_uncertainty(idata: Any) -> xr.Dataset:
    """Return how uncertain each layer's weights are: one row per layer.

    Weights and biases of a layer are pooled, each relative to its own prior.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    Dataset, dims (layer) or, with several chains, (chain, layer)
        ``num_weights``; ``mean_abs``, ``sd_q05``, ``sd_q50``, ``sd_q95`` in units of the weight; ``sd_to_prior``
        (median over the weights of sd / prior sd); ``snr_q05``, ``snr_q50``, ``snr_q95``; ``contraction`` (mean over
        the weights); ``effective_parameters``, which for a layer whose posterior factorises is ``contraction_sum``
        instead; ``effective_share``; ``kl``, ``kl_per_weight`` in nats and ``kl_share`` of ``kl_total``. Without a
        layer: ``kl_total`` and ``kl_between_layers``. Where the posterior does not factorise:
        ``conditional_sd_to_prior`` and ``conditional_contraction``, which compare with a mean-field posterior. Where
        weights are held at their point estimate: ``num_uncertain``, the number of the others, over which alone all
        columns but ``num_weights`` and ``mean_abs`` are taken; a layer without any has NaN there, for nothing was
        inferred. Against an improper prior all that is relative to its sd is NaN, with the attribute ``reason``, and
        ``kl`` has the attribute ``kl_note``. Each variable's attribute ``long_name`` says what it is; the attributes of
        the whole carry guide, prior and convergence.

    Raises
    ------
    SchemaError
        If the file holds no moments.

    References
    ----------
    .. [1] MacKay (1992), Bayesian Interpolation, eq. 4.9.
    """
    names = layers_with_moments(idata)
    about = schema.dataset(idata, "layers").sel(layer=names)
    rows, factorised, exact = [], [], []
    for name in names:
        moments = layer_moments(idata, name)
        factorised.append(moments.factorised)
        exact.append(moments.exact)
        rows.append(_row(moments))
    table = xr.concat(rows, dim=xr.Variable("layer", names), join="override").transpose(..., "layer")
    uncertain = (table["num_uncertain"] > 0).any("chain").values
    counted = np.array(factorised)[uncertain] if uncertain.any() else np.array(factorised)  # points are neither
    table = _with_effective(table, np.array(factorised), counted=counted)
    table = _with_kl(table, about)
    if bool((table["num_uncertain"] == table["num_weights"]).all()):
        table = table.drop_vars("num_uncertain")
    table = table.drop_vars(
        [
            name
            for name in ("conditional_sd_to_prior", "conditional_contraction")
            if counted.all() or bool(table[name].isnull().all())
        ]
    )
    for name, text in DESCRIPTIONS.items():
        if name in table:
            table[name].attrs["long_name"] = text
    if table["sd_to_prior"].isnull().all() and table["sd_q50"].notnull().any():
        for name in RELATIVE:
            if name in table:
                table[name].attrs["reason"] = IMPROPER
    table.attrs = carried_attrs(idata) | {
        "moments": "exact" if all(exact) else "estimated",
        "factorised": int(counted.all()),
    }
    return squeeze_chain(table)


def _row(moments: LayerMoments) -> xr.Dataset:
    """Return the figures of one layer that need its moments alone, dims (chain)."""
    conditional = [None] * len(moments.sd) if moments.sd_conditional is None else moments.sd_conditional
    figures = [
        metrics.layer_figures(mean, sd, prior_sd=moments.prior_sd, sd_conditional=own)
        for mean, sd, own in zip(moments.mean, moments.sd, conditional, strict=True)
    ]
    data = {name: ("chain", np.array([row[name] for row in figures])) for name in figures[0]}
    return xr.Dataset({"num_weights": ((), moments.sd.shape[1]), **data}, coords={"chain": np.arange(len(moments.sd))})


def _with_effective(table: xr.Dataset, factorised: np.ndarray, *, counted: np.ndarray) -> xr.Dataset:
    """Name the sum over weights by what it is: MacKay's number, or the contraction sum of a factorised posterior."""
    flags = xr.DataArray(factorised, dims="layer", coords={"layer": table["layer"]})
    total = table["effective"].sum("layer")
    out = table.drop_vars("effective").assign(effective_share=table["effective"] / total)
    if not counted.all():
        out["effective_parameters"] = table["effective"].where(~flags)
    if counted.any():
        out["contraction_sum"] = table["effective"].where(flags)
    return out


def _with_kl(table: xr.Dataset, about: xr.Dataset) -> xr.Dataset:
    kl = about["kl"].astype(np.float64)
    total = about["kl_total"].astype(np.float64) if "kl_total" in about else kl.sum("layer", skipna=False)
    between = about["kl_between_layers"] if "kl_between_layers" in about else total - kl.sum("layer", skipna=False)
    out = table.assign(kl=kl.drop_vars("chain", errors="ignore"), kl_total=total.drop_vars("chain", errors="ignore"))
    out["kl_between_layers"] = between.astype(np.float64).drop_vars("chain", errors="ignore")
    out["kl_per_weight"] = out["kl"] / out["num_uncertain"].where(out["num_uncertain"] > 0)
    out["kl_share"] = out["kl"] / out["kl_total"]
    if "kl_se" in about:
        out["kl_se"] = about["kl_se"].astype(np.float64).drop_vars("chain", errors="ignore")
    for name in ("kl", "kl_per_weight", "kl_share"):
        out[name].attrs = {key: about["kl"].attrs[key] for key in ("kl_reason", "kl_note") if key in about["kl"].attrs}
    return out
