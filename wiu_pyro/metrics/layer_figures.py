"""The figures of one layer from the moments of its weights: the columns of the layer table, wherever they are computed.

References
----------
MacKay (1992), Bayesian Interpolation (effective number of parameters).
Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1 (signal-to-noise).
"""

from __future__ import annotations

import numpy as np

from wiu_pyro.metrics.contraction import contraction
from wiu_pyro.metrics.signal_to_noise import signal_to_noise

__all__ = ["layer_figures"]

QUANTILES = {"q05": 0.05, "q50": 0.50, "q95": 0.95}


def layer_figures(
    mean: np.ndarray, sd: np.ndarray, *, prior_sd: np.ndarray, sd_conditional: np.ndarray | None = None
) -> dict[str, float]:
    """Return the figures of one layer of one network, over those of its weights that have a posterior.

    Parameters
    ----------
    mean, sd : ndarray, shape (num_weights,)
        Posterior moments, in units of the weight; an sd of 0 marks a weight held at its point estimate.
    prior_sd : ndarray, shape (num_weights,)
        In the same units, > 0; NaN of an improper prior, relative to which nothing can be said: NaN.
    sd_conditional : ndarray, shape (num_weights,), optional
        Standard deviation given all other weights.

    Returns
    -------
    dict of str to float
        ``mean_abs``, ``sd_q05``, ``sd_q50``, ``sd_q95`` in units of the weight; ``sd_to_prior``, ``snr_q05``,
        ``snr_q50``, ``snr_q95``, ``contraction``, ``effective`` (the sum of the contractions),
        ``conditional_sd_to_prior`` and ``conditional_contraction`` (NaN without `sd_conditional`), dimensionless;
        ``num_uncertain``, the weights that have a posterior. Without any, all but ``mean_abs`` and the count are NaN.

    Raises
    ------
    DataError
        If an sd is negative or NaN, or a prior sd not finite and positive.

    Examples
    --------
    >>> found = layer_figures(np.array([1.0, -2.0]), np.array([0.5, 0.5]), prior_sd=np.ones(2))
    >>> found["contraction"], found["snr_q50"], found["effective"]
    (0.75, 2.0, 1.5)
    """
    known = sd > 0
    figures = {"mean_abs": float(np.abs(mean).mean())}
    if not known.all():
        mean, sd, prior_sd = mean[known], sd[known], prior_sd[known]
        sd_conditional = None if sd_conditional is None else sd_conditional[known]
    if not sd.size:
        return figures | dict.fromkeys(_NAMES, np.nan) | {"num_uncertain": 0}
    levels = list(QUANTILES.values())
    improper = np.isnan(prior_sd)
    narrowed = np.full(sd.shape, np.nan) if improper.any() else contraction(sd, prior_sd)
    figures |= dict(zip((f"sd_{name}" for name in QUANTILES), np.quantile(sd, levels).tolist(), strict=True))
    # one of the values, never a difference of infinities
    snr = np.quantile(signal_to_noise(mean, sd), levels, method="nearest")
    figures |= dict(zip((f"snr_{name}" for name in QUANTILES), snr.tolist(), strict=True))
    figures |= {
        "sd_to_prior": float(np.median(sd / prior_sd)),
        "contraction": float(narrowed.mean()),
        "effective": float(narrowed.sum()),
        "conditional_sd_to_prior": np.nan,
        "conditional_contraction": np.nan,
    }
    if sd_conditional is not None and not improper.any():
        figures["conditional_sd_to_prior"] = float(np.median(sd_conditional / prior_sd))
        figures["conditional_contraction"] = float(contraction(sd_conditional, prior_sd).mean())
    return figures | {"num_uncertain": int(sd.size)}


_NAMES = (
    *(f"sd_{name}" for name in QUANTILES),
    *(f"snr_{name}" for name in QUANTILES),
    "sd_to_prior",
    "contraction",
    "effective",
    "conditional_sd_to_prior",
    "conditional_contraction",
)
