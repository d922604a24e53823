"""Print the timings as multiples of a plain step or pass: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import warnings

import torch

from tests.benchmarks.cases import NETWORKS, curvature_cases, step_cases
from tests.benchmarks.predictive_cases import BARS, OURS, per_image_ratios, predictive_cases
from tests.benchmarks.timing import ratios

KINDS = {
    "training step, batch 128": (step_cases, "plain Adam", 30),
    "curvature, 2,000 images": (curvature_cases, "", 3),
}


def main() -> None:
    """Time all cases of all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (default: 30 steps, 3 passes)")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians over rounds of the ratio within a round"
    )
    for title, (make, base, default) in KINDS.items():
        for name in NETWORKS:
            cases = make(name)
            found = ratios(cases, base=base or next(iter(cases)), rounds=rounds or default)
            print(f"\n{name}: {title}, as a multiple of {base or next(iter(cases))}")
            for case, ratio in found.items():
                print(f"  {case:<38} {ratio:6.2f}")
    _print_predictive(rounds or 3)


def _print_predictive(rounds: int) -> None:
    for name, bar in BARS.items():
        cases = predictive_cases(name)
        print(f"\n{name}: linearised predictive of {cases[OURS].num_images:,} images, {OURS}, in time per image")
        for case, ratio in per_image_ratios(cases, rounds=rounds).items():
            wanted = f", at most 1/{1 / bar:.0f} wanted" if case.startswith("laplace-torch") else ""
            print(f"  1/{1 / ratio:<7.1f} of {case} ({cases[case].num_images:,} images){wanted}")


if __name__ == "__main__":
    main()
