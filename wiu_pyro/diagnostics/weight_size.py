"""A weight's size and its uncertainty: what is related, the sd in bins of size, and what chance alone would give.

References
----------
Woodruff (1952), Confidence intervals for medians and other position measures (a band of the share below, turned into
one of the quantile).
Sen (1968), Estimates of the regression coefficient based on Kendall's tau (the median of pairwise slopes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from wiu_pyro.diagnostics.units import Moments
from wiu_pyro.diagnostics.weight_distribution import FLOOR
from wiu_pyro.metrics.permutation import parts_of_variation, permutation_sd
from wiu_pyro.metrics.ranks import rank_shares, sorting_order

__all__ = ["QUANTILES", "Quantities", "Sorted", "binned", "correlation_null_sd", "kept_in_common", "pair_slopes"]

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
LEAST_IN_BIN = 10
LEAST_KEPT = 20  # weights, below which sets of them are not compared


@dataclass(frozen=True)
class Quantities:
    """What is related in one parameter of one network.

    Attributes
    ----------
    size, ratio : ndarray, shape (outputs, inputs, rest), float32
        absolute mean / prior sd, below 0.001 all counted as 0.001: how far a weight without signal has decayed says
        nothing. sd / prior sd to 16 bits, about 1e-5 of its value: float32 carries rounding beyond.
    absolute, snr : ndarray, same shape
        absolute mean in units of the weight, and absolute mean / sd, as they are.
    known : ndarray of bool, same shape
        Where the weight has a posterior; the others are left out.
    one_prior : bool
        True where all weights have one prior sd.
    """

    size: np.ndarray
    ratio: np.ndarray
    absolute: np.ndarray
    snr: np.ndarray
    known: np.ndarray
    one_prior: bool

    @classmethod
    def of(cls, moments: Moments, *, conditional: bool) -> Quantities:
        """Return the quantities of one parameter, (outputs, inputs, rest), by its marginal or conditional sd."""
        found = moments.sd_of(conditional=conditional)
        absolute = np.abs(moments.mean)
        known = np.isfinite(absolute) & np.isfinite(found) & (found > 0)
        sd = np.where(known, found, np.float32(1))
        size = np.maximum(absolute / moments.prior_sd, np.float32(FLOOR))
        return cls(
            size, _to_16_bits(sd / moments.prior_sd), absolute, absolute / sd, known, not np.ptp(moments.prior_sd)
        )

    def subset(self, rows: np.ndarray, columns: np.ndarray) -> Quantities:
        """Return the quantities of some outputs and inputs."""
        place = np.ix_(rows, columns)
        arrays = {name: value[place] for name, value in vars(self).items() if name != "one_prior"}
        return Quantities(**arrays, one_prior=self.one_prior)

    def trimmed(self) -> Quantities:
        """Return the quantities without the outputs and inputs that hold no known weight."""
        rows, columns = (np.flatnonzero(self.known.any(axis=axes)) for axes in ((1, 2), (0, 2)))
        return self if (rows.size, columns.size) == self.known.shape[:2] else self.subset(rows, columns)

    def of_known(self, name: str) -> np.ndarray:
        """Return one quantity of the known weights, (N,)."""
        values = getattr(self, name)
        return values.ravel() if self.known.all() else values[self.known]


def _to_16_bits(values: np.ndarray) -> np.ndarray:
    # float32 has 23 bits after the leading one: the last 8 are rounded off
    return ((values.view(np.uint32) + np.uint32(128)) & np.uint32(0xFFFFFF00)).view(np.float32)


@dataclass(frozen=True)
class Sorted:
    """A quantity of the known weights, sorted once.

    Attributes
    ----------
    values : ndarray, shape (N,)
    order : ndarray of int, shape (N,)
        Indices that sort them.
    share : ndarray, shape (N,), float32
        Ranks from 0 to 1.
    """

    values: np.ndarray
    order: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, *, order: np.ndarray | None = None) -> Sorted:
        """Sort the values, or take their order where it is known."""
        order = sorting_order(values) if order is None else order
        return cls(values, order, rank_shares(values, order))


def correlation_null_sd(first: np.ndarray, second: np.ndarray, known: np.ndarray) -> float:
    """Return the sd of a correlation when outputs, inputs and positions of one quantity are permuted.

    Parameters
    ----------
    first, second : ndarray, shape (N,)
        Of the known weights: their ranks, for a rank correlation.
    known : ndarray of bool, shape (outputs, inputs, rest)
        Where they stand; the mean stands for the others.

    Returns
    -------
    float
        NaN where one of the two is constant.
    """
    parts = [parts_of_variation(_laid_out(values - values.mean(), known, fill=0)) for values in (first, second)]
    scale = np.sqrt(np.prod([sum(part.values()) for part in parts]))
    return permutation_sd(*parts, shape=known.shape) / scale if scale > 0 else float("nan")


def _laid_out(values: np.ndarray, known: np.ndarray, *, fill: float) -> np.ndarray:
    # (N,) -> (outputs, inputs, rest)
    if values.size == known.size:
        return values.reshape(known.shape)
    out = np.full(known.shape, fill, dtype=values.dtype)
    out[known] = values
    return out


def binned(size: Sorted, ratio: Sorted, known: np.ndarray, *, bins: int, level: float = 0.95) -> dict[str, np.ndarray]:
    """Return the curve of the sd over the size, in bins of about equally many weights, and its null band.

    Parameters
    ----------
    size, ratio : Sorted
    known : ndarray of bool, shape (outputs, inputs, rest)
    bins : int
        At most; each holds 10 weights or more, and equal sizes are never parted.
    level : float
        Of the band, over all bins together (Bonferroni).

    Returns
    -------
    dict of str to ndarray, shape (bins,)
        ``count``, ``size`` (median), ``q10``, ``q50``, ``q90`` of the ratio, ``null_low`` and ``null_high`` of its
        median; NaN in bins that are not needed.
    """
    names = ("count", "size", *QUANTILES, "null_low", "null_high")
    out = {name: np.full(bins, np.nan) for name in names}
    order, number = size.order, np.empty(size.values.size, dtype=np.int16)
    starts = _starts(size.values[order], bins)
    for place, (start, end) in enumerate(zip(starts, [*starts[1:], order.size])):
        members = order[start:end]
        number[members] = place
        values = np.quantile(ratio.values[members], list(QUANTILES.values()))
        for name, value in zip(names, (end - start, size.values[members[len(members) // 2]], *values)):
            out[name][place] = value
    spread = _null_spread(_laid_out(number, known, fill=-1), ratio, known, filled=len(starts))
    reach = stats.norm.isf((1 - level) / (2 * len(starts))) * spread
    last = order.size - 1
    for name, sign in (("null_low", -1), ("null_high", 1)):
        places = np.clip((0.5 + sign * reach) * last, 0, last).round().astype(np.int64)
        out[name][: len(starts)] = ratio.values[ratio.order[places]]
    return out


def _starts(ordered: np.ndarray, bins: int) -> list[int]:
    """Return where each bin begins among the sorted sizes: at the first of equal ones, the smallest in one bin."""
    number = max(1, min(bins, ordered.size // LEAST_IN_BIN))
    smallest = int(np.searchsorted(ordered, ordered[0], side="right"))
    begin = smallest if smallest * number > ordered.size and number > 1 else 0  # at the floor: more than a bin
    rest = number - (begin > 0)
    cuts = begin + np.arange(rest) * (ordered.size - begin) // rest
    places = np.searchsorted(ordered, ordered[cuts[cuts < ordered.size]], side="left")
    return np.unique(np.append(0, places)).tolist()


def _null_spread(number: np.ndarray, ratio: Sorted, known: np.ndarray, *, filled: int) -> np.ndarray:
    """Return for each bin the sd of its share of weights below the layer's median, if the two were unrelated."""
    below = (ratio.share <= 0.5).astype(np.float32)
    of_ratio = parts_of_variation(_laid_out(below - below.mean(), known, fill=0))
    out = np.empty(filled)
    for place in range(filled):
        member = (number == place).astype(np.float32)
        count = float(member.sum(dtype=np.float64))
        member[~known] = count / ratio.values.size
        out[place] = permutation_sd(parts_of_variation(member), of_ratio, shape=known.shape) / count
    return out


def pair_slopes(size: np.ndarray, ratio: np.ndarray, *, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes of log ratio over log size between random pairs of weights, ascending, and the pairs.

    Their median is a slope that a few odd weights do not move.

    Parameters
    ----------
    size, ratio : ndarray, shape (N,)
    pairs : int
        Drawn, by a fixed seed; pairs of equal size drop out, and weights at the floor of the size.

    Returns
    -------
    slopes : ndarray, shape (kept pairs,)
    pairs : ndarray of int, shape (2, kept pairs)

    References
    ----------
    .. [1] Sen (1968), Estimates of the regression coefficient based on Kendall's tau.
    """
    large = np.flatnonzero(size > np.float32(FLOOR))
    if large.size == 0:
        return np.empty(0), np.empty((2, 0), dtype=np.int64)
    chosen = large[np.random.default_rng(0).integers(large.size, size=(2, pairs))]
    run, rise = (np.subtract(*np.log(values[chosen].astype(np.float64))) for values in (size, ratio))
    usable = np.flatnonzero(run != 0)
    slopes = rise[usable] / run[usable]
    order = np.argsort(slopes)
    return slopes[order], chosen[:, usable[order]]


def kept_in_common(
    shares: tuple[np.ndarray, np.ndarray], levels: tuple[float, ...], *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return how far two rankings keep the same weights when a share of the lowest is removed.

    Parameters
    ----------
    shares : (ndarray, ndarray), shapes (N,)
        Both rankings from 0 to 1, as `metrics.ranks.rank_shares` gives them.
    levels : tuple of float
        Shares removed.
    weights : ndarray, shape (N,), optional
        How often each weight counts.

    Returns
    -------
    ndarray, shape (levels,)
        Weights kept by both over the mean of those kept by each, 0 to 1; about 1 - level for unrelated rankings. NaN
        where fewer than 20 are kept.
    """
    out = np.full(len(levels), np.nan)
    for place, level in enumerate(levels):
        if (1 - level) * shares[0].size < LEAST_KEPT:
            continue
        one, two = (share > level for share in shares)
        sums = [np.sum(kept if weights is None else weights[kept], dtype=np.float64) for kept in (one & two, one, two)]
        if sums[1] + sums[2] > 0:
            out[place] = 2 * sums[0] / (sums[1] + sums[2])
    return out
