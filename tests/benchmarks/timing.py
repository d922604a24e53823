"""Timing of several cases in one run: interleaved, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["ratios"]


def ratios(cases: Mapping[str, Callable[[], object]], *, base: str, rounds: int, warmup: int = 1) -> dict[str, float]:
    """Return the time of each case as a multiple of the base's: the median over rounds of the ratio within a round."""
    for _ in range(warmup):
        for run in cases.values():
            run()
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        spent = {}
        for name, run in cases.items():
            began = time.perf_counter()
            run()
            spent[name] = time.perf_counter() - began
        for name, seconds in spent.items():
            found[name].append(seconds / spent[base])
    return {name: statistics.median(values) for name, values in found.items()}
