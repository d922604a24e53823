"""The prior's scales chosen by held-out data, once a network is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.prior_scales import PriorRecord, PriorTuning, by_site, groups_of
from wiu_pyro.guides.prior_tuning import warn_inconsistent
from wiu_pyro.infer.predict import predict
from wiu_pyro.infer.result import Fit

__all__ = ["cross_validate_prior"]

NUM_SAMPLES = 200  # draws of the outputs for a held-out density


def cross_validate_prior(fit: Fit, validation: Any, *, tuning: PriorTuning | None = None, seed: int = 0) -> Fit:
    """Return a Laplace fit under the prior that predicts held-out data best, without training again.

    Each multiplier of the grid is tried by the mean log predictive density of the linearised network. With scales for
    each layer or site, one after the other is chosen while the others stay, twice round.

    Parameters
    ----------
    fit : Fit
        Of a Laplace guide.
    validation : DataLoader, Dataset or tuple of tensors (x, y)
        Data the fit has not seen; not the test data, which then would no longer be.
    tuning : PriorTuning, optional
        With ``by="cross-validation"``: what shares a scale, and the grid.
    seed : int
        Of the draws, the same for each multiplier.

    Returns
    -------
    Fit
        With another guide and structure; the guide's `prior_record` has the scales and the densities.

    Raises
    ------
    GuideError
        If the fit's guide is no Laplace posterior, or there are no validation data.
    """
    tuning = tuning or PriorTuning(by="cross-validation")
    if not isinstance(fit.guide, AutoBlockNormal):
        raise GuideError(
            "Cross-validation of the prior needs a Laplace posterior, whose prior can be changed without training, but "
            f"this fit has a {type(fit.guide).__name__}. Fit for example AutoKFACLaplace."
        )
    if validation is None:
        raise GuideError('tune_prior="cross-validation" needs held-out data. Pass validation=(x, y) to wiu_pyro.fit.')
    groups = groups_of(fit.structure, fit.guide.posterior_sites(), tuning.per)
    scales = {name: fit.guide.prior_scales.get(sites[0], 1.0) for name, sites in groups.items()}
    before = best = _density(fit, fit.guide, validation, seed)
    for _ in range(1 if len(groups) == 1 else 2):
        for name in groups:
            tried = {scales[name]: best}
            for scale in tuning.grid:
                if scale not in tried:
                    guide = fit.guide.with_prior(by_site({**scales, name: scale}, groups))
                    tried[scale] = _density(fit, guide, validation, seed)
            scales[name] = max(tried, key=tried.__getitem__)
            best = tried[scales[name]]
    record = PriorRecord(groups=scales, tuning=tuning, objective=(before, best))
    guide = fit.guide.with_prior(by_site(scales, groups), record=record)
    warn_inconsistent(guide)
    return replace(fit, guide=guide, structure=guide.structure)


def _density(fit: Fit, guide: AutoBlockNormal, validation: Any, seed: int) -> float:
    """Return the mean log predictive density of held-out data, in nats a datum."""
    candidate = replace(fit, guide=guide, structure=guide.structure)
    found = predict(candidate, validation, kind="linearised", num_samples=NUM_SAMPLES, seed=seed)
    if found.log_likelihood is None:
        raise GuideError("Cross-validation of the prior needs labels. Pass validation=(x, y).")
    values = np.asarray(found.log_likelihood, np.float64)  # (num_samples, num_data)
    return float(np.mean(logsumexp(values, axis=0) - math.log(len(values))))
