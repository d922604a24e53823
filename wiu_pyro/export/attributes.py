"""The attributes of a posterior: what was fitted, how, on what, whether it converged, and which versions did it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.export.files import plain_attrs
from wiu_pyro.export.sources import Source
from wiu_pyro.guides import AutoBlockNormal, known_guides, log_marginal_likelihood
from wiu_pyro.nn import Prior, describe_prior
from wiu_pyro.schema import SCHEMA_VERSION

__all__ = ["posterior_attrs"]

RECIPE = (  # settings of a fit that its file names
    "epochs",
    "kept_epochs",
    "batch_size",
    "batches_per_epoch",
    "learning_rate",
    "schedule",
    "rate_warmup",
    "log_scale_rate",
    "kl_warmup",
    "max_norm",
    "average",
    "patience",
    "precision",
    "num_processes",
)
PACKAGES = {"wiu_pyro": "wiu_pyro", "torch": "torch", "pyro": "pyro-ppl", "arviz": "arviz"}


def posterior_attrs(source: Source, *, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of group `posterior`, netCDF-safe.

    Parameters
    ----------
    source : Source
    labels : mapping
        `model_name`, `data_name` and `input_scaling`, as the user gave them.

    Returns
    -------
    dict
    """
    guide, fit = source.guide, source.fit
    curvature = getattr(guide, "curvature", None)
    seed = source.seed if fit is None else fit.seed
    attrs = {
        "wiu_schema": SCHEMA_VERSION,
        **({} if source.sampled is None else source.sampled.notes),
        "guide": guide_name(source),
        "approximation": short_name(source),
        "curvature": getattr(curvature, "kind", "none"),
        **_weight_sharing(guide),
        **_truncation(curvature),
        **_pass(curvature),
        "structure": structure_name(source),
        "prior": _prior_text(source),
        **_tuned_prior(guide),
        "likelihood": source.structure.likelihood,
        "num_data": _num_data(source),
        "num_data_curvature": getattr(curvature, "num_seen", 0),
        "seed": seed,
        "draw_seed": source.seed,
        "temperature": float(getattr(guide, "temperature", 1.0)),
        **_training(source),
        **_convergence(source),
        **dict(getattr(guide, "notes", {})),
        "prediction_default": getattr(guide, "default_predictive", "sampled"),
        "not_covered": _not_covered(source),
        **labels,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{f"{name}_version": _version(package) for name, package in PACKAGES.items()},
    }
    return dict(plain_attrs(attrs))


def _weight_sharing(guide: Any) -> dict[str, str]:
    structures = {block.structure for block in getattr(guide, "blocks", ())}
    return {"weight_sharing": guide.curvature.weight_sharing} if structures & {"kfac", "ekfac"} else {}


def _truncation(curvature: Any) -> dict[str, float]:
    if not getattr(curvature, "column_tolerance", 0.0):
        return {}
    return {"column_tolerance": curvature.column_tolerance, "columns_lost": curvature.columns_lost}


def _pass(curvature: Any) -> dict[str, Any]:
    """Return how the data were gone over, where that is known."""
    if getattr(curvature, "seconds", None) is None:
        return {}
    return {
        "curvature_seconds": curvature.seconds,
        "curvature_processes": curvature.num_processes,
        "peak_memory_bytes": curvature.peak_memory_bytes,
    }


def guide_name(source: Source) -> str:
    """Return the class of the guide the user chose: for a Laplace posterior, the guide it was made from."""
    if source.guide is None:
        return "MCMC" if source.sampled is None else source.sampled.method
    return getattr(source.guide, "source_name", type(source.guide).__name__)


def short_name(source: Source) -> str:
    """Return the name by which the command line knows the posterior; the class name where it does not."""
    if source.guide is None:
        return "mcmc" if source.sampled is None else source.sampled.name
    if getattr(source.guide, "cli_name", ""):
        return source.guide.cli_name
    names = (name for name, kind in known_guides().items() if type(source.guide) is kind)
    return next(names, guide_name(source))


def structure_name(source: Source) -> str:
    """Return the structure of the posterior: that of its guide, or of its layers, which may be ``"mixed"``."""
    own = getattr(source.guide, "structure_name", "")
    closed = source.chains[0].closed
    if own or closed is None:
        return own or "draws"
    found = dict.fromkeys(kind for kind in closed.layer_structure.values() if kind != "point")
    return next(iter(found)) if len(found) == 1 else "mixed"


def _prior_text(source: Source) -> str:
    prior = getattr(source.model, "prior", None)
    if getattr(source.guide, "has_own_prior", False):
        texts = {site: describe_prior(fn) for site, fn in source.structure.priors.items()}
        alike = {text: [site for site in texts if texts[site] == text] for text in texts.values()}
        return "the guide's own, not the model's: " + "; ".join(f"{t}: {', '.join(s)}" for t, s in alike.items())
    if isinstance(prior, Prior):
        return prior.describe()
    if isinstance(prior, Mapping):
        return "; ".join(f"{pattern}: {rule.describe() if rule else 'none'}" for pattern, rule in prior.items())
    texts = (describe_prior(source.structure.priors[site]) for site in source.structure.parameter_sites)
    return "; ".join(dict.fromkeys(texts))


def _tuned_prior(guide: Any) -> dict[str, Any]:
    """Return how the prior in force differs from the model's, and the evidence under it, where they are known."""
    record = getattr(guide, "prior_record", None)
    if record is None:
        return {}
    found = {
        "prior_tuned": record.describe(),
        "prior_trained_with": "yes" if record.consistent else "no: the weights were trained under another prior",
    }
    if not isinstance(guide, AutoBlockNormal):  # the ELBO alone is known, a bound on it
        return found
    try:
        with torch.no_grad():
            evidence = log_marginal_likelihood(guide).item()
    except GuideError:  # the curvature saw no labels
        evidence = math.nan
    return found | {"log_marginal_likelihood": evidence}


def _num_data(source: Source) -> int | float:
    num_data = float(source.structure.num_data)
    return round(num_data) if math.isclose(num_data, round(num_data), rel_tol=1e-6) else num_data


def _training(source: Source) -> dict[str, Any]:
    """Return how the fit was trained, without what was left at none."""
    settings = {} if source.fit is None else source.fit.settings
    if not settings.get("epochs"):  # none of its own
        return {}
    return {f"training_{name}": settings[name] for name in RECIPE if settings.get(name) not in (None, 0, 0.0)}


def _convergence(source: Source) -> dict[str, Any]:
    known = source.fit or source.sampled
    found = None if known is None else known.convergence
    if found is None:
        detail = (
            "MCMC: see r_hat in az.summary" if source.guide is None else "the guide came without the record of a fit"
        )
        return {
            "converged": "not assessed",
            "convergence_change": math.nan,
            "convergence_threshold": math.nan,
            "convergence_detail": detail,
        }
    return {
        "converged": {True: "yes", False: "no"}.get(found.converged, "not assessed"),
        "convergence_change": _number(found.change),
        "convergence_threshold": _number(found.threshold),
        "convergence_detail": found.detail,
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(np.asarray(value))


def _not_covered(source: Source) -> str:
    fixed = [f"{name} (no prior: a point estimate)" for name in source.structure.not_covered]
    points = [f"{name} (at a point estimate)" for name in getattr(source.guide, "point_sites", ())]
    closed = source.chains[0].closed
    partly = []
    for name, sd in ({} if closed is None else closed.sd).items():
        held = int((sd == 0).sum())
        if held and name not in getattr(source.guide, "point_sites", ()):
            share = "" if held == sd.numel() else f"{held:,} of {sd.numel():,} weights "
            partly.append(f"{name} ({share}at a point estimate)")
    return "; ".join(fixed + points + partly)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
