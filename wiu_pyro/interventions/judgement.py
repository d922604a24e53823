"""How good a pruned network is, image by image, and how far it is from the unpruned one on the same images.

Differences are paired: both networks see the same images. Intervals within one network resample images and hold
together over the shares removed: of the error by Tango's score, which keeps its level where hardly any image changes
sides (Bonferroni over the shares); of NLL and ECE by the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from wiu_pyro import metrics

__all__ = ["SCORES", "Judge", "Judged", "safe_sparsity", "seeds_no_worse"]

SCORES = ("error", "nll", "ece")
BINS = 15
NUM_BOOTSTRAP = 200


@dataclass(frozen=True)
class Judged:
    """One network's predictions, image by image.

    Attributes
    ----------
    wrong : ndarray of bool, shape (N,)
    nll : ndarray, shape (N,)
        Nats.
    bins : ndarray of int, shape (N,)
        In which bin of the confidence each image is.
    gaps : ndarray, shape (N,)
        Confidence minus whether it is right.
    """

    wrong: np.ndarray
    nll: np.ndarray
    bins: np.ndarray
    gaps: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> Judged:
        """Judge class probabilities, (N, C), by labels, (N,)."""
        wrong = ~metrics.correct(probabilities, labels)
        confidence = np.minimum(probabilities.max(axis=1).astype(np.float64), 1.0)
        edges = np.linspace(0.0, 1.0, BINS + 1)  # as in metrics.reliability
        bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1).astype(np.uint8)
        return cls(wrong, metrics.nll_pointwise(probabilities, labels), bins, (confidence - ~wrong).astype(np.float32))

    @property
    def figures(self) -> dict[str, float]:
        """Error as a share, mean NLL in nats, ECE as a share."""
        return {
            "error": float(self.wrong.mean()),
            "nll": float(self.nll.mean()),
            "ece": float(np.abs(np.bincount(self.bins, weights=self.gaps, minlength=BINS)).sum() / len(self.gaps)),
        }

    def resampled_ece(self, resampled: np.ndarray) -> np.ndarray:
        """Return the ECE of each resample, (num resamples,), from their counts over N, (num resamples, N)."""
        by_bin = np.zeros((len(self.gaps), BINS), dtype=np.float32)
        by_bin[np.arange(len(self.gaps)), self.bins] = self.gaps
        return np.abs(resampled @ by_bin).sum(axis=1)


@dataclass(frozen=True)
class Judge:
    """What compares networks on one set of images.

    Attributes
    ----------
    level : float
        Of intervals.
    margin : float
        By how much the error, a share, may rise for a network still to count as no worse.
    resampled : ndarray, shape (NUM_BOOTSTRAP, N)
        How often each image is in each resample, divided by N; float32.
    """

    level: float
    margin: float
    resampled: np.ndarray

    @classmethod
    def of(cls, num: int, *, level: float, margin: float, seed: int) -> Judge:
        """Return a judge of `num` images."""
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(num, np.full(num, 1 / num), size=NUM_BOOTSTRAP)
        return cls(level, margin, (counts / num).astype(np.float32))

    def curve(self, pruned: Sequence[Judged], unpruned: Judged) -> dict[str, np.ndarray]:
        """Return figures and paired differences along the shares removed, each of shape (shares,).

        Returns
        -------
        dict of str to ndarray
            ``error``, ``nll``, ``ece``; each also with ``_difference``, ``_difference_low``, ``_difference_high``.
        """
        base, out = unpruned.figures, {}
        for name in SCORES:
            values = np.array([one.figures[name] for one in pruned])
            out |= {name: values, f"{name}_difference": values - base[name]}
        ends = self._error_ends(pruned, unpruned)
        for name, resamples in (("nll", self._nll(pruned, unpruned)), ("ece", self._ece(pruned, unpruned))):
            found = metrics.bootstrap_intervals(out[f"{name}_difference"], resamples, level=self.level)
            ends |= {f"{name}_difference_low": found.low, f"{name}_difference_high": found.high}
        return out | ends

    def _error_ends(self, pruned: Sequence[Judged], unpruned: Judged) -> dict[str, np.ndarray]:
        each = 1 - (1 - self.level) / len(pruned)
        ends = np.array([metrics.paired_share_interval(*_disagreements(one, unpruned), level=each) for one in pruned])
        return {"error_difference_low": ends[:, 0], "error_difference_high": ends[:, 1]}

    def _nll(self, pruned: Sequence[Judged], unpruned: Judged) -> np.ndarray:
        rises = np.stack([one.nll - unpruned.nll for one in pruned], axis=1)  # (N, shares)
        return self.resampled @ rises.astype(np.float32)

    def _ece(self, pruned: Sequence[Judged], unpruned: Judged) -> np.ndarray:
        base = unpruned.resampled_ece(self.resampled)
        return np.stack([one.resampled_ece(self.resampled) - base for one in pruned], axis=1)

    def no_worse(self, pruned: Sequence[Judged], unpruned: Judged) -> np.ndarray:
        """Return for each share whether the error has risen by less than the margin, by a one-sided score test.

        As if one image more had gone wrong: so few as disagree here, the Normal is too sure of them.

        Parameters
        ----------
        pruned : sequence of Judged
        unpruned : Judged

        Returns
        -------
        ndarray of bool, shape (shares,)
        """
        reach = float(stats.norm.isf(1 - self.level))
        counts = [_disagreements(one, unpruned) for one in pruned]
        more = [(min(worse + 1, num - better), better, num) for worse, better, num in counts]
        return np.array([metrics.paired_score(*each, difference=self.margin) for each in more]) < -reach


def _disagreements(pruned: Judged, unpruned: Judged) -> tuple[int, int, int]:
    only_pruned = int(np.sum(pruned.wrong & ~unpruned.wrong))
    return only_pruned, int(np.sum(unpruned.wrong & ~pruned.wrong)), len(pruned.wrong)


def seeds_no_worse(differences: np.ndarray, *, level: float, margin: float) -> np.ndarray:
    """Return where the mean rise over seeds is below the margin, by a one-sided t test.

    Parameters
    ----------
    differences : ndarray, shape (seeds, shares)
    level, margin : float

    Returns
    -------
    ndarray of bool, shape (shares,)
    """
    num = len(differences)
    error = differences.std(axis=0, ddof=1) / np.sqrt(num)
    return differences.mean(axis=0) + stats.t.isf(1 - level, num - 1) * error < margin


def safe_sparsity(no_worse: np.ndarray, sparsities: Sequence[float]) -> float:
    """Return the largest share such that removing it, and any smaller one on the list, is no worse; 0 if none is.

    Going up until the first failure keeps the level over the whole list: no share is looked at after one that failed.

    Parameters
    ----------
    no_worse : ndarray of bool, shape (shares,)
    sparsities : sequence of float
        Ascending.

    Returns
    -------
    float

    References
    ----------
    .. [1] Maurer, Hothorn and Lehmacher (1995), Multiple comparisons in drug clinical trials and preclinical assays:
       a-priori ordered hypotheses.

    Examples
    --------
    >>> safe_sparsity(np.array([True, True, False, True]), [0.5, 0.9, 0.95, 0.99])
    0.9
    """
    passed = int(np.cumprod(no_worse).sum())
    return float(sparsities[passed - 1]) if passed else 0.0
