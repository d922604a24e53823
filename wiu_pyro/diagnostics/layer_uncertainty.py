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

QUANTILES = {"q05": 0.05, "q50": 0.50, "q95": 0.95}
DESCRIPTIONS = {
    "num_weights": "weights, biases and other parameters of the layer",
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
    "kl_per_weight": "kl / num_weights, nats",
    "kl_share": "kl / kl_total",
    "kl_total": "KL of the whole posterior from the prior, nats",
    "kl_between_layers": "kl_total minus the layers' sum: dependence between layers, nats",
}


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
        ``conditional_sd_to_prior`` and ``conditional_contraction``, which compare with a mean-field posterior. A layer
        kept as a point estimate has no contraction (NaN): nothing was inferred there. Each variable's attribute
        ``long_name`` says what it is; the attributes of the whole carry guide, prior and convergence.

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
        rows.append(_row(moments, point=str(about["structure"].sel(layer=name).values) == "point"))
    table = xr.concat(rows, dim=xr.Variable("layer", names), join="override").transpose(..., "layer")
    table = _with_effective(table, np.array(factorised))
    table = _with_kl(table, about)
    table = table.drop_vars(
        [
            name
            for name in ("conditional_sd_to_prior", "conditional_contraction")
            if all(factorised) or bool(table[name].isnull().all())
        ]
    )
    for name, text in DESCRIPTIONS.items():
        if name in table:
            table[name].attrs["long_name"] = text
    table.attrs = carried_attrs(idata) | {
        "moments": "exact" if all(exact) else "estimated",
        "factorised": int(all(factorised)),
    }
    return squeeze_chain(table)


def _row(moments: LayerMoments, *, point: bool) -> xr.Dataset:
    """Return the figures of one layer that need its moments alone, dims (chain)."""
    snr = metrics.signal_to_noise(moments.mean, moments.sd)
    columns: dict[str, np.ndarray] = {"mean_abs": np.abs(moments.mean).mean(axis=1)}
    columns |= {f"sd_{name}": np.quantile(moments.sd, q, axis=1) for name, q in QUANTILES.items()}
    columns |= {f"snr_{name}": _quantile(snr, q) for name, q in QUANTILES.items()}
    columns["sd_to_prior"] = np.median(moments.sd / moments.prior_sd, axis=1)
    contraction = metrics.contraction(moments.sd, moments.prior_sd)
    columns["contraction"] = contraction.mean(axis=1)
    columns["effective"] = contraction.sum(axis=1)
    nothing = np.full(len(moments.sd), np.nan)
    columns |= {"conditional_sd_to_prior": nothing, "conditional_contraction": nothing}
    if moments.sd_conditional is not None:
        columns["conditional_sd_to_prior"] = np.median(moments.sd_conditional / moments.prior_sd, axis=1)
        columns["conditional_contraction"] = metrics.contraction(moments.sd_conditional, moments.prior_sd).mean(axis=1)
    if point:
        columns |= dict.fromkeys(("contraction", "effective", "conditional_contraction"), nothing)
    data = {name: ("chain", values) for name, values in columns.items()}
    return xr.Dataset({"num_weights": ((), moments.sd.shape[1]), **data}, coords={"chain": np.arange(len(moments.sd))})


def _quantile(values: np.ndarray, q: float) -> np.ndarray:
    """Return a quantile that is right with infinite values: one of the values, never a difference of infinities."""
    known = np.where(np.isnan(values), np.inf, values)  # 0 / 0: a weight held at exactly zero
    return np.quantile(known, q, axis=1, method="nearest")


def _with_effective(table: xr.Dataset, factorised: np.ndarray) -> xr.Dataset:
    """Name the sum over weights by what it is: MacKay's number, or the contraction sum of a factorised posterior."""
    flags = xr.DataArray(factorised, dims="layer", coords={"layer": table["layer"]})
    total = table["effective"].sum("layer")
    out = table.drop_vars("effective").assign(effective_share=table["effective"] / total)
    if not factorised.all():
        out["effective_parameters"] = table["effective"].where(~flags)
    if factorised.any():
        out["contraction_sum"] = table["effective"].where(flags)
    return out


def _with_kl(table: xr.Dataset, about: xr.Dataset) -> xr.Dataset:
    kl = about["kl"].astype(np.float64)
    total = about["kl_total"].astype(np.float64) if "kl_total" in about else kl.sum("layer", skipna=False)
    between = about["kl_between_layers"] if "kl_between_layers" in about else total - kl.sum("layer", skipna=False)
    out = table.assign(kl=kl.drop_vars("chain", errors="ignore"), kl_total=total.drop_vars("chain", errors="ignore"))
    out["kl_between_layers"] = between.astype(np.float64).drop_vars("chain", errors="ignore")
    out["kl_per_weight"] = out["kl"] / out["num_weights"]
    out["kl_share"] = out["kl"] / out["kl_total"]
    if "kl_se" in about:
        out["kl_se"] = about["kl_se"].astype(np.float64).drop_vars("chain", errors="ignore")
    for name in ("kl", "kl_per_weight", "kl_share"):
        out[name].attrs = {"kl_reason": about["kl"].attrs["kl_reason"]} if "kl_reason" in about["kl"].attrs else {}
    return out
