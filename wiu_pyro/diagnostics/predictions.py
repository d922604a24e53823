"""Access to a file's predictions: which predictive, what was observed, and the log density of each observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from wiu_pyro import metrics, schema
from wiu_pyro.errors import SchemaError

__all__ = ["class_probabilities", "log_density", "observed", "predictive_group"]

PREFIX = "predictive_"


def predictive_group(idata: Any, kind: str | None = None) -> tuple[str, xr.Dataset]:
    """Return a predictive of the file and its kind.

    Parameters
    ----------
    idata : InferenceData or DataTree
    kind : str, optional
        ``"linearised"`` or ``"sampled"``; the posterior's default, if not given, and where the file lacks that, the
        only one it holds.

    Returns
    -------
    kind : str
    data : Dataset

    Raises
    ------
    SchemaError
        If the file holds no such predictive.
    """
    held = [name.removeprefix(PREFIX) for name in schema.groups(idata) if name.startswith(PREFIX)]
    wanted = kind or str(schema.attrs(idata).get("prediction_default", ""))
    if wanted not in held and kind is None and len(held) == 1:
        wanted = held[0]
    if wanted not in held:
        raise SchemaError(
            f"A predictive of kind '{wanted or 'linearised'}' is needed, but the file holds: "
            f"{', '.join(held) or 'none'}. Give test data to "
            "the export: wiu_pyro.to_inference_data(fit, data=test_data)."
        )
    return wanted, schema.dataset(idata, PREFIX + wanted)


def observed(idata: Any) -> xr.DataArray:
    """Return the labels (or targets) the predictions speak of.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    DataArray, dims (obs_id)

    Raises
    ------
    SchemaError
        If the file has none.
    """
    held = schema.groups(idata)
    if "observed_data" not in held or "obs" not in schema.dataset(idata, "observed_data"):
        raise SchemaError(
            f"Labels (variable 'obs' of group 'observed_data') are needed, but the file holds: {', '.join(held)}. "
            "Give labelled data to the export: wiu_pyro.to_inference_data(fit, data=test_data)."
        )
    return schema.dataset(idata, "observed_data")["obs"]


def class_probabilities(values: xr.DataArray) -> np.ndarray:
    """Return class probabilities, (chain, obs_id, class); a single column is the probability of class 1 of two.

    Parameters
    ----------
    values : DataArray, dims (chain, obs_id, class)

    Returns
    -------
    ndarray, shape (chain, N, C)
    """
    p = values.transpose("chain", "obs_id", "class").values
    return np.concatenate([1 - p, p], axis=-1) if p.shape[-1] == 1 else p


def log_density(idata: Any, kind: str | None = None) -> np.ndarray:
    r"""Return the log predictive density of each observation, :math:`\log E_q\, p(y_n \mid x_n, w)`.

    Of a classifier from the mean probabilities of the predictive; of a regression from the log likelihood's draws.

    Parameters
    ----------
    idata : InferenceData or DataTree
    kind : str, optional
        As `predictive_group`.

    Returns
    -------
    ndarray, shape (chain, N)
        As many chains as the predictive has: one of an ensemble, for the mixture over its members. Nats; of a
        classifier floored as `wiu_pyro.metrics.nll_pointwise` says.

    Raises
    ------
    SchemaError
        If the file lacks the predictive, the labels, or a log likelihood of that predictive.
    """
    chosen, data = predictive_group(idata, kind)
    if "class" in data.dims:
        labels = observed(idata).values
        return np.stack([-metrics.nll_pointwise(p, labels) for p in class_probabilities(data["mean"])])
    held = schema.dataset(idata, "log_likelihood") if "log_likelihood" in schema.groups(idata) else xr.Dataset()
    if "obs" not in held or held.attrs.get("predictive", chosen) != chosen:
        raise SchemaError(
            f"The log likelihood of the {chosen} predictive (group 'log_likelihood') is needed, but the file has "
            f"{held.attrs.get('predictive', 'none')}. Give labelled data to the export."
        )
    draws = held["obs"].transpose("chain", "draw", "obs_id").values.astype(np.float64)
    # of an ensemble the predictive is one, that of all its members' draws: (mixture, member and draw, N)
    draws = draws.reshape(data.sizes["chain"], -1, draws.shape[-1])
    return logsumexp(draws, axis=1) - np.log(draws.shape[1])
