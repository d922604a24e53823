"""Timing of several cases in one run: interleaved, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Ratio", "ratio", "ratios", "times"]

Cases = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Ratio:
    """A time as a multiple of another: the median over rounds of the ratio within a round, and its range."""

    median: float
    least: float
    most: float


def times(cases: Cases, *, rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Return the seconds that each case took in each round; within a round they run one after another.

    A case that returns a mapping has timed parts of itself: their seconds, by name.
    """
    for _ in range(warmup):
        for run in cases.values():
            run()
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, run in cases.items():
            began = time.perf_counter()
            parts = run()
            spent.setdefault(name, []).append(time.perf_counter() - began)
            for part, seconds in parts.items() if isinstance(parts, Mapping) else ():
                spent.setdefault(part, []).append(seconds)
    return spent


def ratio(spent: Mapping[str, list[float]], case: str, base: str) -> Ratio:
    """Return the time of a case as a multiple of the base's."""
    within = [one / other for one, other in zip(spent[case], spent[base], strict=True)]
    return Ratio(statistics.median(within), min(within), max(within))


def ratios(cases: Cases, *, base: str, rounds: int, warmup: int = 1) -> dict[str, float]:
    """Return the time of each case as a multiple of the base's: the median over rounds of the ratio within a round."""
    spent = times(cases, rounds=rounds, warmup=warmup)
    return {name: ratio(spent, name, base).median for name in cases}
