"""Print the timings as multiples of a plain step or pass: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping

import torch

from tests.benchmarks.bars import Bar
from tests.benchmarks.cases import NETWORKS, PLAIN_STEP, STEP_BARS, step_cases
from tests.benchmarks.curvature_cases import BARS as CURVATURE_BARS
from tests.benchmarks.curvature_cases import PLAIN, SAMPLING_BAR, curvature_cases, images, sampling_cases, train
from tests.benchmarks.memory import MEMORY_BAR, measured
from tests.benchmarks.predictive_cases import BARS, OURS, per_image_ratios, predictive_cases
from tests.benchmarks.timing import ratio, times

SECTIONS = ("steps", "curvature", "sampling", "memory", "predictive")
NUM_IMAGES = 10_000


def main() -> None:
    """Time all cases of all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default: 30 steps, 3 of all else)")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="the sections to time")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help=f"of a curvature pass (default: {NUM_IMAGES})")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians over rounds of the ratio within a round"
    )
    if "steps" in asked.only:
        _print_steps(asked.rounds or 30)
    if {"curvature", "sampling"} & set(asked.only):
        _print_curvature(asked.only, rounds=asked.rounds or 3, num_images=asked.images)
    if "memory" in asked.only:
        _print_memory()
    if "predictive" in asked.only:
        _print_predictive(asked.rounds or 3)


def _print_steps(rounds: int) -> None:
    for name in NETWORKS:
        spent = times(step_cases(name), rounds=rounds, warmup=3)
        print(f"\n{name}: training step, batch 128, as a multiple of {PLAIN_STEP}")
        for case in spent:
            found = ratio(spent, case, PLAIN_STEP)
            print(f"  {case:<42} {found.median:6.2f}   ({found.least:.2f} to {found.most:.2f})")
        for bar in STEP_BARS:
            _print_bar(bar, spent, name)


def _print_curvature(only: tuple[str, ...], *, rounds: int, num_images: int) -> None:
    data = images()
    for name in NETWORKS:
        weights = train(name, data)
        few = data.first(num_images)
        if "curvature" in only:
            spent = times(curvature_cases(name, few, weights), rounds=rounds)
            print(f"\n{name}: curvature, {len(few.x):,} images ({data.name}), trained weights; multiples of {PLAIN}")
            for case in spent:
                found = ratio(spent, case, PLAIN)
                print(f"  {case:<47} {found.median:6.2f}   ({found.least:.2f} to {found.most:.2f})")
            for bar in CURVATURE_BARS:
                _print_bar(bar, spent, name)
        if "sampling" in only and name in SAMPLING_BAR.most:
            spent = times(sampling_cases(name, data.first(2_000), weights), rounds=max(rounds, 5))
            print(f"\n{name}: 100 draws of all weights and all marginal variances, KFAC")
            _print_bar(SAMPLING_BAR, spent, name)


def _print_bar(bar: Bar, spent: Mapping[str, list[float]], network: str) -> None:
    """Print a ratio beside what it has to be."""
    peers = [case for case in spent if case.startswith(bar.against)]
    if not peers:
        print(f"  {bar.case}: none of {', '.join(bar.against)} to compare with")
        return
    fastest = min(peers, key=lambda case: sorted(spent[case])[len(spent[case]) // 2])
    found, most = ratio(spent, bar.case, fastest), bar.most[network]
    verdict = "reached" if found.median <= most else "NOT reached"
    span = f"({found.least:.2f} to {found.most:.2f})"
    print(f"  {bar.case} / {fastest}: {found.median:.2f} {span}, at most {most:g}: {verdict}")


def _print_memory() -> None:
    found = measured()
    (gradient, _), (peak, factors) = found["gradient"], found["factors"]
    times_gradient = (peak - factors) / gradient
    verdict = "reached" if times_gradient <= MEMORY_BAR else "NOT reached"
    print("\nVGG-16 at CIFAR size, Kronecker factors by one sample on the CPU: peak memory")
    print(f"  gradient {gradient / 1e6:,.0f} MB, factors' pass {peak / 1e6:,.0f} MB, factors {factors / 1e6:,.0f} MB")
    print(f"  (pass - factors) / gradient: {times_gradient:.2f}, at most {MEMORY_BAR:g}: {verdict}")


def _print_predictive(rounds: int) -> None:
    for name, bar in BARS.items():
        cases = predictive_cases(name)
        print(f"\n{name}: linearised predictive of {cases[OURS].num_images:,} images, {OURS}, in time per image")
        for case, found in per_image_ratios(cases, rounds=rounds).items():
            wanted = f", at most 1/{1 / bar:.0f} wanted" if case.startswith("laplace-torch") else ""
            print(f"  1/{1 / found:<7.1f} of {case} ({cases[case].num_images:,} images){wanted}")


if __name__ == "__main__":
    main()
