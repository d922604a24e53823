"""Time and memory against the number of weights: ``python -m tests.benchmarks.growth``.

One architecture, VGG-16 with BatchNorm for images of 32 by 32, at widths from 2 to 168 channels in its first layer:
ten thousand to a hundred million weights, at random values. Of each posterior: the fit to 48 images (two epochs of
mean field, one pass of exact curvature for Laplace), and the export of exact moments and of 100 draws. Each stands in a
process of its own; memory is what the process held at most beyond what it held before, which is everything but the
network, as a smaller fit has been through. Where a Kronecker factorisation would take too long its cost stands there as
`cost` says it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.size import POSTERIORS, batches, measured, posterior, vgg16

__all__ = ["WIDTHS", "estimate", "main", "measure"]

WIDTHS = (2, 6, 16, 64, 168)
NUM_DRAWS = 100
WIDEST_KFAC = 64  # channels; beyond, decompositions take hours on two cores
COLUMNS = ("fit, s", "memory, MB", "export, s", "memory, MB", "file, MB")


def measure(name: str, width: int, folder: Path) -> dict[str, float]:
    """Fit one posterior at one width, write it, and return what both took."""
    import wiu_pyro as wiu

    path = folder / f"{name}-{width}.nc"
    wiu.export_posterior(posterior(name, width=2), path, num_samples=NUM_DRAWS)  # all is imported and has run once
    path.unlink()
    with measured() as fitting:
        fit = posterior(name, width=width)
    with measured() as writing:
        wiu.export_posterior(fit, path, num_samples=NUM_DRAWS)
    return {
        "weights": sum(layer.num_weights for layer in fit.structure.layers),
        "cells": [
            fitting["seconds"],
            fitting["beyond"] / 1e6,
            writing["seconds"],
            writing["beyond"] / 1e6,
            path.stat().st_size / 1e6,
        ],
    }


def estimate(name: str, width: int) -> str:
    """Return what a posterior would take by its own account."""
    import wiu_pyro as wiu

    model = wiu.nn.BayesianNetwork(vgg16(width), num_data=50_000).eval()
    cost = getattr(wiu.guides, POSTERIORS[name])(model).cost(batches())
    return (
        f"not fitted: {cost.memory_bytes / 1e9:.1f} GB of factors, {cost.peak_bytes / 1e9:.1f} GB at the peak, "
        f"decompositions of about {cost.decomposition_seconds / 3600:.1f} hours (cost)"
    )


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=POSTERIORS, nargs="+", default=list(POSTERIORS), help="the posteriors")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="channels of the first layer")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.step:
        name, width, folder = asked.step
        print(json.dumps(measure(name, int(width), Path(folder))))
        return
    print(f"{'':<14}{'weights':>12}" + "".join(f"{column:>12}" for column in COLUMNS), flush=True)
    for name in asked.only:
        for width in asked.widths:
            print(_row(name, width), flush=True)


def _row(name: str, width: int) -> str:
    if name == "laplace-kfac" and width > WIDEST_KFAC:
        return f"{name:<14}{_num_weights(width):>12,}  {estimate(name, width)}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.growth", "--step", name, str(width), folder]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return f"{name:<14}{found['weights']:>12,}" + "".join(f"{cell:>12,.1f}" for cell in found["cells"])


def _num_weights(width: int) -> int:
    return sum(parameter.numel() for parameter in vgg16(width).parameters())


if __name__ == "__main__":
    main()
