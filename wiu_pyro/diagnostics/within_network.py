"""How far a layer's figures would move, were its units others drawn like them: a bootstrap within one network.

Outputs and inputs of a layer are resampled independently, an entry counting the product of both (Owen 2007, the
pigeonhole bootstrap). It says nothing of another training: weights of one network are no independent replicates of it.

Figures that are sums over the weights are resampled as they are. A quantile is moved along the layer's own quantile
function by as much as the share of weights below it moves (Woodruff 1952), which needs no sorting of each replicate:
right to a few percent for medians; for outer quantiles of small layers it comes out too wide, up to twice.

References
----------
Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1.
Woodruff (1952), Confidence intervals for medians and other position measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wiu_pyro import metrics
from wiu_pyro.diagnostics.units import Moments, Units, contraction

__all__ = ["FEWEST_CLUSTERS", "Resampling", "cluster_reason", "resampled_figures"]

FEWEST_CLUSTERS = 20
SHARES = ("kl_share", "effective_share")
SUMS = ("kl", "kl_per_weight", "effective_parameters", "contraction_sum")
KL_TOLERANCE = 1e-3  # relative, between the weights' sum and the file's


def _ratio(moments: Moments) -> np.ndarray:
    return moments.sd / moments.prior_sd


def _conditional_ratio(moments: Moments) -> np.ndarray:
    return (moments.sd if moments.sd_conditional is None else moments.sd_conditional) / moments.prior_sd


def _signal_to_noise(moments: Moments) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(moments.mean) / moments.sd


def _sd(moments: Moments) -> np.ndarray:
    return moments.sd


QUANTILES: dict[str, tuple[Callable[[Moments], np.ndarray], float]] = {
    "sd_q05": (_sd, 0.05),
    "sd_q50": (_sd, 0.50),
    "sd_q95": (_sd, 0.95),
    "sd_to_prior": (_ratio, 0.50),
    "conditional_sd_to_prior": (_conditional_ratio, 0.50),
    "snr_q05": (_signal_to_noise, 0.05),
    "snr_q50": (_signal_to_noise, 0.50),
    "snr_q95": (_signal_to_noise, 0.95),
}
MEANS: dict[str, Callable[[Moments], np.ndarray]] = {
    "mean_abs": lambda moments: np.abs(moments.mean),
    "contraction": contraction,
    "conditional_contraction": lambda moments: contraction(moments, conditional=True),
}


@dataclass(frozen=True)
class Resampling:
    """Replicates of the figures of one layer of one network, and why some figures have none.

    Attributes
    ----------
    replicates : dict of str to ndarray, shape (num_bootstrap,)
    reasons : dict of str to str
    """

    replicates: dict[str, np.ndarray]
    reasons: dict[str, str]


def cluster_reason(units: Units | None) -> str:
    """Return why the units of a layer cannot be resampled; empty where they can.

    Parameters
    ----------
    units : Units or None
        As `layer_units` gives them.

    Returns
    -------
    str
    """
    if units is None:
        return "its parameters are no table of outputs by inputs"
    outputs, inputs = units.clusters
    if min(outputs, inputs) < FEWEST_CLUSTERS:
        return f"{outputs} outputs and {inputs} inputs: fewer than {FEWEST_CLUSTERS} clusters"
    return "" if units.weight.free.any() else "fixed at a point estimate"


def resampled_figures(
    units: Units | None, figures: Mapping[str, float], *, num_bootstrap: int, factorised: bool, seed: int
) -> Resampling:
    """Return bootstrap replicates of a layer's figures over its outputs and inputs.

    Parameters
    ----------
    units : Units or None
        As `layer_units` gives them.
    figures : mapping of str to float
        The layer's row of the layer table.
    num_bootstrap : int
    factorised : bool
        Whether the posterior factorises over the layer's weights; otherwise its KL and effective parameters are
        figures of the whole layer, which no unit has a part of.
    seed : int

    Returns
    -------
    Resampling
    """
    reason = cluster_reason(units)
    if units is None or reason:
        return Resampling({}, dict.fromkeys(figures, reason))
    sample = _Sample(units, num_bootstrap, seed)
    replicates, reasons = {}, {}
    for name, value in figures.items():
        reasons[name] = "" if np.isfinite(value) else "it has none"
        if name in SHARES:
            reasons[name] = "a share of the whole network's"
        elif name in SUMS and not factorised:
            reasons[name] = "where weights are correlated it does not split by unit"
        if reasons[name]:
            continue
        found = _replicates(name, value, figures, sample)
        if found is None:
            reasons[name] = "it is not known how it splits by unit"
        else:
            replicates[name] = found
    return Resampling(replicates, reasons)


def _replicates(name: str, value: float, figures: Mapping[str, float], sample: _Sample) -> np.ndarray | None:
    if name in QUANTILES:
        return sample.quantile(*QUANTILES[name])
    if name in MEANS:
        return sample.mean(MEANS[name])
    if name == "contraction_sum":
        return sample.mean(contraction) * sample.num_free
    if name in ("kl", "kl_per_weight"):
        total = figures["kl"]
        if abs(sample.total(_kl) - total) > KL_TOLERANCE * abs(total):
            return None  # a prior that is not Normal, or weights that the sum leaves out
        return sample.mean(_kl) * (value / total) * sample.num_free
    return None


def _kl(moments: Moments) -> np.ndarray:
    """Return each weight's KL from a Normal prior, nats."""
    ratio = np.square(_ratio(moments))
    shift = (moments.mean - moments.prior_mean) / moments.prior_sd
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (np.square(shift) + ratio - 1 - np.log(ratio)) / 2
    found[~moments.free] = np.nan
    return found


class _Sample:
    """One set of resampled outputs and inputs, the same for all figures of a layer; a bias goes with its output."""

    def __init__(self, units: Units, num_bootstrap: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.units = units
        outputs, inputs = units.clusters
        self.rows = metrics.pigeonhole_counts(outputs, num_bootstrap, rng=rng)
        self.columns = metrics.pigeonhole_counts(inputs, num_bootstrap, rng=rng)
        self.num_free = int(sum(np.count_nonzero(part.free) for part in self._parts()))
        self.weights = self._sums(lambda moments: moments.free.astype(np.float32))
        self.last: tuple[Callable[[Moments], np.ndarray], np.ndarray] | None = None

    def _parts(self) -> list[Moments]:
        return [self.units.weight] if self.units.bias is None else [self.units.weight, self.units.bias]

    def _sums(self, values: Callable[[Moments], np.ndarray]) -> np.ndarray:
        """Return the replicates of the sum over the free weights, (num_bootstrap,)."""
        weight, bias = self.units.weight, self.units.bias
        cells = np.where(weight.free, values(weight), np.float32(0)).sum(axis=2)  # (out, in)
        found = metrics.pigeonhole_sums(cells, self.rows, self.columns)
        return found if bias is None else found + np.where(bias.free, values(bias), np.float32(0)) @ self.rows

    def mean(self, values: Callable[[Moments], np.ndarray]) -> np.ndarray:
        return self._sums(values) / self.weights

    def total(self, values: Callable[[Moments], np.ndarray]) -> float:
        return float(sum(np.sum(values(part)[part.free], dtype=np.float64) for part in self._parts()))

    def quantile(self, values: Callable[[Moments], np.ndarray], share: float) -> np.ndarray:
        known = self._sorted(values)
        at = known[min(int(share * known.size), known.size - 1)]
        below = np.searchsorted(known, at, side="right") / known.size
        moved = self.mean(lambda moments: ((values(moments) <= at) & moments.free).astype(np.float32))
        place = np.clip(share + below - moved, 0, 1) * (known.size - 1)
        return known[np.rint(place).astype(np.int64)].astype(np.float64)

    def _sorted(self, values: Callable[[Moments], np.ndarray]) -> np.ndarray:
        """Return the values over the free weights in their order; of the last quantity asked for, kept."""
        if self.last is None or self.last[0] is not values:
            known = np.concatenate([values(part)[part.free] for part in self._parts()])
            known.sort()
            self.last = (values, known)
        return self.last[1]
