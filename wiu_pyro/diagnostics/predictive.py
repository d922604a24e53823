"""How good the predictions are, and whether the classifier knows when it does not know.

References
----------
Gneiting and Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation.
Depeweg et al. (2018), Decomposition of Uncertainty in Bayesian Deep Learning.
Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics, schema
from wiu_pyro.diagnostics.moments import squeeze_chain
from wiu_pyro.diagnostics.predictions import class_probabilities, log_density, observed, predictive_group
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.errors import SchemaError

__all__ = ["predictive"]

ENTROPIES = ("predictive_entropy", "expected_entropy", "mutual_information")


def predictive(idata: Any, kind: str | None = None, *, bins: int = 15, num_declined: int = 24) -> xr.Dataset:
    """Return the quality of the predictions, with standard errors over the images, beside that of the point estimate.

    Parameters
    ----------
    idata : InferenceData or DataTree
        With a predictive and labels: exported with data.
    kind : str, optional
        ``"linearised"`` or ``"sampled"``; the posterior's default, if not given.
    bins : int
        Bins of equal width of the confidence, for ``ece`` and the reliability table.
    num_declined : int
        How many of the images declined first are listed.

    Returns
    -------
    Dataset, with a dim chain where there are several
        Of a classifier: ``accuracy``, ``nll`` (nats per image), ``brier`` (sum over classes), each with ``*_se``;
        ``ece``; ``predictive_entropy`` and its parts ``expected_entropy`` (aleatoric) and ``mutual_information``
        (epistemic), means in nats, with ``*_se``; ``aurc``; ``auroc_error``, how well the entropy tells wrong from
        right (NaN where all are right); the same without entropies of the point estimate as ``point_*``, which
        declines by the entropy of its own probabilities, and ``nll_above_point`` (nats per image) and
        ``accuracy_below_point`` (share of images), each with ``*_se``: means of the differences image by image, above 0
        where the posterior predicts worse. Reliability table over
        ``bin``: ``bin_left``, ``bin_right``, ``bin_count``, ``bin_confidence``, ``bin_accuracy``. Over ``coverage``:
        ``risk`` (error rate among the images answered when the highest predictive entropy is declined first) and
        ``point_risk``. Over ``rank``, the images declined first: ``declined`` (obs_id), ``declined_label``,
        ``declined_predicted``, ``declined_probability`` with ``declined_lower``, ``declined_upper`` of the predicted
        class, ``declined_entropy``.

        Of a regression: ``rmse``, ``nll`` with ``nll_se``, ``interval_coverage`` with ``*_se``, ``point_rmse``.

    Raises
    ------
    SchemaError
        If the file lacks the predictive or the labels.
    """
    chosen, data = predictive_group(idata, kind)
    obs = observed(idata)
    if obs.sizes["obs_id"] != data.sizes["obs_id"]:
        raise SchemaError(
            f"Labels and predictions of the same images are needed, got {obs.sizes['obs_id']} labels and "
            f"{data.sizes['obs_id']} predictions. Export the posterior again with wiu_pyro.to_inference_data."
        )
    if "class" in data.dims:
        chains = [_classifier(data, obs, i, (bins, num_declined)) for i in range(data.sizes["chain"])]
    else:
        chains = [_regression(idata, chosen, data, i) for i in range(data.sizes["chain"])]
    out = xr.concat(chains, dim="chain")
    split = str(schema.dataset(idata, "observed_data").attrs.get("split", ""))
    extra = {"kind": chosen, "num_obs": obs.size, "split": split, "interval": data.attrs.get("interval", 0.95)}
    extra["prediction_default"] = str(schema.attrs(idata).get("prediction_default", ""))
    out.attrs = carried_attrs(idata) | extra | {key: data.attrs[key] for key in ("link",) if key in data.attrs}
    return squeeze_chain(out)


def _classifier(data: xr.Dataset, obs: xr.DataArray, chain: int, sizes: tuple[int, int]) -> xr.Dataset:
    bins, num_declined = sizes
    one = data.isel(chain=[chain])
    p, labels = class_probabilities(one["mean"])[0], obs.values
    entropy = _entropy(one, p)
    columns = _scores(p, labels, entropy, bins)
    for name in ENTROPIES:
        if name in one:
            columns |= _with_se(name, one[name].values[0])
    wrong = ~metrics.correct(p, labels)
    mixed = wrong.any() and not wrong.all()
    columns["auroc_error"] = metrics.auroc(entropy, wrong) if mixed else np.nan
    curve = metrics.risk_coverage(wrong, entropy)
    lines = {"risk": ("coverage", curve.risk)}
    if "point_mean" in one:
        point = class_probabilities(one["point_mean"])[0]
        point_entropy = metrics.entropy(point)
        columns |= {f"point_{name}": value for name, value in _scores(point, labels, point_entropy, bins).items()}
        above = metrics.nll_pointwise(p, labels) - metrics.nll_pointwise(point, labels)
        columns |= _with_se("nll_above_point", above)
        lost = metrics.correct(point, labels).astype(float) - metrics.correct(p, labels)
        columns |= _with_se("accuracy_below_point", lost)
        risk = metrics.risk_coverage(~metrics.correct(point, labels), point_entropy).risk
        lines["point_risk"] = ("coverage", risk)
    table = metrics.reliability(p, labels, bins=bins)
    lines |= {"bin_count": ("bin", table.count), "bin_confidence": ("bin", table.confidence)}
    lines |= {"bin_accuracy": ("bin", table.accuracy), "bin_left": ("bin", table.edges[:-1])}
    lines |= {"bin_right": ("bin", table.edges[1:])}
    first = metrics.decline_order(entropy)[:num_declined]
    out = xr.Dataset(
        {name: ((), value) for name, value in columns.items()} | lines, coords={"coverage": curve.coverage}
    )
    return out.assign(_declined(one, obs, p, entropy, first))


def _entropy(one: xr.Dataset, p: np.ndarray) -> np.ndarray:
    return one["predictive_entropy"].values[0] if "predictive_entropy" in one else metrics.entropy(p)


def _scores(p: np.ndarray, labels: np.ndarray, entropy: np.ndarray, bins: int) -> dict[str, float]:
    hit = metrics.correct(p, labels)
    columns = _with_se("accuracy", hit) | _with_se("nll", metrics.nll_pointwise(p, labels))
    columns |= _with_se("brier", metrics.brier_pointwise(p, labels))
    return columns | {"ece": metrics.ece(p, labels, bins=bins), "aurc": metrics.risk_coverage(~hit, entropy).aurc}


def _with_se(name: str, values: np.ndarray) -> dict[str, float]:
    estimate = metrics.mean_with_se(values)
    return {name: estimate.value, f"{name}_se": estimate.se}


def _declined(
    one: xr.Dataset, obs: xr.DataArray, p: np.ndarray, entropy: np.ndarray, first: np.ndarray
) -> dict[str, tuple[str, np.ndarray]]:
    """Return what is known of the images declined first, over the dim rank."""
    predicted = p[first].argmax(axis=1)
    columns = {
        "declined": obs["obs_id"].values[first],
        "declined_label": obs.values[first],
        "declined_predicted": predicted,
        "declined_probability": p[first, predicted],
        "declined_entropy": entropy[first],
    }
    if "lower" in one and one.sizes["class"] == p.shape[1]:
        for name in ("lower", "upper"):
            columns[f"declined_{name}"] = one[name].transpose("chain", "obs_id", "class").values[0][first, predicted]
    return {name: ("rank", values) for name, values in columns.items()}


def _regression(idata: Any, kind: str, data: xr.Dataset, chain: int) -> xr.Dataset:
    one = data.isel(chain=chain).transpose(..., "obs_id", "output")
    target = observed(idata).values.reshape(one.sizes["obs_id"], -1)
    if target.shape[1] != one.sizes["output"]:
        raise SchemaError(
            f"Targets of {one.sizes['output']} outputs are needed, got shape {target.shape}. Export it again."
        )
    columns = {"rmse": float(np.sqrt(np.mean((one["mean"].values - target) ** 2)))}
    columns |= _with_se("nll", -log_density(idata, kind)[chain])
    inside = (target >= one["lower"].values) & (target <= one["upper"].values)
    columns |= _with_se("interval_coverage", inside.mean(axis=1))
    if "point_mean" in one:
        columns["point_rmse"] = float(np.sqrt(np.mean((one["point_mean"].values - target) ** 2)))
    return xr.Dataset({name: ((), value) for name, value in columns.items()})
