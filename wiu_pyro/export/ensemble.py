"""The file of an ensemble: its members along `chain`, and predictions of the mixture over them.

Weights and layer figures stand by member, for hidden units of two networks do not correspond. The predictive has one
chain, that of the mixture, with what each member says beside it along `member`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro.export import predictions
from wiu_pyro.export.chains import concat
from wiu_pyro.guides.point_estimate import is_point_estimate
from wiu_pyro.infer import Fit, predict
from wiu_pyro.infer.ensemble import STRIDE
from wiu_pyro.schema import dataset, groups

__all__ = ["all_points", "joined_groups", "mixture_groups", "with_unknown_sds", "without_posterior"]

NO_POSTERIOR = "every weight stands at a point estimate, of which no uncertainty is known"


OVER_MEMBERS = {"log_marginal_likelihood": np.mean, "curvature_seconds": np.sum}  # attributes that differ by member


def joined_groups(fit: Fit, export: Callable[..., Any], *, num_samples: int, seed: int) -> dict[str, xr.Dataset]:
    """Return the groups of an ensemble that need no data.

    Parameters
    ----------
    fit : Fit
        With members.
    export : callable
        `to_inference_data` for one member, without data.
    num_samples, seed : int
        Draws of each member.

    Returns
    -------
    dict of str to Dataset
    """
    points = _are_points(fit)
    size = 2 if points else num_samples
    runs = [export(one, num_samples=size, seed=seed + STRIDE * place) for place, one in enumerate(fit.members)]
    joined = concat(runs)
    found = {name: dataset(joined, name) for name in groups(joined)}
    if points:  # a point is one draw, however often it is drawn
        found = {name: data.isel(draw=[0]) if "draw" in data.dims else data for name, data in found.items()}
    attrs = found["posterior"].attrs
    alone = [dataset(run, "posterior").attrs for run in runs]
    for name, summary in OVER_MEMBERS.items():
        if name in attrs:
            attrs[name] = float(summary([own[name] for own in alone]))
    attrs |= {
        "guide": type(fit.guide).__name__,
        "approximation": "ensemble" if points else f"ensemble-{attrs['approximation']}",
        "member_guide": attrs["guide"],
        "members": len(fit.members),
        "convergence_detail": fit.convergence.detail,
    }
    return found


def _are_points(fit: Fit) -> bool:
    return is_point_estimate(fit.members[0].guide)


def without_posterior(found: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Put NaN, with the reason, for every sd of a file in which no weight has a posterior; leave others as they are.

    A weight held at its point estimate beside others that have a posterior is marked by an sd of 0. Where there are no
    others, a file of zeros would read as certainty.

    Parameters
    ----------
    found : mapping of str to Dataset
        The groups of a file.

    Returns
    -------
    dict of str to Dataset
    """
    if not all_points(found["layers"]):
        return dict(found)
    return {name: with_unknown_sds(name, data) for name, data in found.items()}


def all_points(layers: xr.Dataset) -> bool:
    """Return whether no layer of group `layers` has a posterior."""
    return bool((layers["structure"].values == "point").all())


def with_unknown_sds(name: str, data: xr.Dataset) -> xr.Dataset:
    """Return a group of a file in which no weight has a posterior, with NaN, and the reason, for every sd."""
    if name == "posterior":
        return data.assign(deviation_rms=_unknown(data["deviation_rms"]))
    if not name.startswith("moments_"):
        return data
    sds = [key for key in data.data_vars if str(key).endswith(("sd", "sd_conditional")) and "prior_" not in key]
    return data.assign({key: _unknown(data[key]) for key in sds})


def _unknown(values: xr.DataArray) -> xr.DataArray:
    return xr.full_like(values, np.nan).assign_attrs(reason=NO_POSTERIOR)


def mixture_groups(
    fit: Fit, observed: predictions.Observations, config: Any, *, num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    """Return the predictives of an ensemble, and the log likelihood of each draw of each member.

    Parameters
    ----------
    fit : Fit
        With members.
    observed : Observations
    config : ExportConfig
    num_samples, seed : int
        Draws of each member.

    Returns
    -------
    dict of str to Dataset
    """
    found: dict[str, xr.Dataset | None] = {}
    default = fit.guide.default_predictive
    kinds = predictions.predictive_kinds(config.predictive, default)
    for kind in kinds:
        link = "mc" if config.predictive == "both" and kind == "sampled" else config.link
        one = predict(fit, observed.parts, kind=kind, link=link, num_samples=num_samples, seed=seed)
        found[f"predictive_{kind}"] = predictions.predictive_group([one])
        if kind == default or len(kinds) == 1:
            found["log_likelihood"] = predictions.log_likelihood_group(predictions.by_member(one, len(fit.members)))
    return {name: group for name, group in found.items() if group is not None}
