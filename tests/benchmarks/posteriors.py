"""Every posterior of one network side by side on MNIST: ``python -m tests.benchmarks.posteriors``.

Each seed trains one point estimate under the shipped prior, from which the posteriors of one network start; members of
an ensemble start from fresh weights of their own. A posterior is fitted and predicts in a process of its own, which
tells what time and memory it took, over those of the data; the time of the point estimate is in that of none, while
members of an ensemble train from nothing. What is done is kept, so that a stopped run goes on.
Out of distribution are the letters of notMNIST; the score is the entropy of the predictive.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wiu_pyro as wiu
from tests.benchmarks.cases import NETWORKS, networks
from tests.benchmarks.predictions import scores, sets_of_images

POINT_EPOCHS, VI_EPOCHS = 10, 20
MEMBERS = 5
DRAWS = 100
guides = wiu.guides


@dataclass(frozen=True)
class Case:
    """A posterior of the table.

    Attributes
    ----------
    make : callable
        Its guide, of a model.
    epochs : int
        After the point estimate, or of each member.
    fresh : bool
        Whether it starts from fresh weights rather than at the point estimate.
    options : dict
        Of `wiu_pyro.fit`.
    """

    make: Callable[[Any], Any]
    epochs: int = 0
    fresh: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def _ensemble(member: Any) -> Callable[[Any], Any]:
    return lambda model: guides.AutoEnsemble(model, member=member, size=MEMBERS)


CASES = {
    "point estimate": Case(guides.AutoPointEstimate),
    "Laplace, last layer": Case(guides.AutoLastLayerLaplace),
    "Laplace, diagonal": Case(guides.AutoDiagonalLaplace),
    "Laplace, KFAC": Case(guides.AutoKFACLaplace),
    "Laplace, KFAC, prior tuned": Case(lambda model: guides.AutoKFACLaplace(model, tune_prior="marginal-likelihood")),
    "SWAG": Case(guides.AutoSWAG, epochs=POINT_EPOCHS),
    "mean field": Case(guides.AutoMeanField, epochs=VI_EPOCHS, options={"log_scale_rate": 10.0}),
    "IVON": Case(guides.AutoIVON, epochs=VI_EPOCHS),
    "low rank (2) plus diagonal": Case(lambda model: guides.AutoLowRank(model, rank=2), epochs=VI_EPOCHS),
    "matrix Normal, diagonal factors": Case(
        lambda model: guides.AutoMatrixNormal(model, factors="diagonal"), epochs=VI_EPOCHS
    ),
    f"ensemble of {MEMBERS}": Case(_ensemble(guides.AutoPointEstimate), epochs=POINT_EPOCHS, fresh=True),
    f"ensemble of {MEMBERS}, Laplace KFAC": Case(_ensemble(guides.AutoKFACLaplace), epochs=POINT_EPOCHS, fresh=True),
}
ROWS = ("error %", "NLL", "ECE", "AUROC", "CPU minutes", "memory MB")


def point_estimate(network: str, seed: int, train: Any, cache: Path) -> dict[str, torch.Tensor]:
    """Return weights trained under the shipped prior; kept in `cache`."""
    path = cache / f"{network}_point_{POINT_EPOCHS}_{seed}.pt"
    if not path.exists():
        torch.manual_seed(seed)
        _, model = networks(network)
        fit = wiu.fit(model, guides.AutoPointEstimate(model), train, epochs=POINT_EPOCHS, seed=seed)
        torch.save(fit.point_estimate, path)
    return torch.load(path)


def one(network: str, name: str, seed: int, cache: Path) -> dict[str, Any]:
    """Fit one posterior, predict with it, and return its scores, its cost, and whether it has converged."""
    train, test, letters = sets_of_images()
    case = CASES[name]
    point = None if case.fresh else point_estimate(network, seed, train, cache)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(seed)
    _, model = networks(network)
    began = time.process_time()
    fit = wiu.fit(model, case.make(model), train, epochs=case.epochs, start=point, seed=seed, **case.options)
    minutes = (time.process_time() - began) / 60
    known, unknown = (wiu.infer.predict(fit, (x,), num_samples=DRAWS).mean for x, _ in (test, letters))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cost = {"CPU minutes": minutes, "memory MB": grown / 1024}  # ru_maxrss is in kB on Linux
    return {**scores(known, test[1].numpy(), unknown, by_entropy=True), **cost, "converged": fit.convergence.converged}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return mean and standard deviation over seeds of each score, and how many fits that were assessed converged."""
    lines = [f"{'':<34}" + "".join(f"{row:>18}" for row in ROWS) + f"{'converged':>12}"]
    for name, results in found.items():
        cells = []
        for row in ROWS:
            values = np.array([one[row] for one in results])
            spread = values.std(ddof=1) if len(values) > 1 else np.nan
            digits = 4 if row in ("NLL", "ECE") else 0 if row == "memory MB" else 2
            cells.append(f"{values.mean():.{digits}f} ± {spread:.{digits}f}")
        settled = [one["converged"] for one in results if one["converged"] is not None]
        verdict = f"{sum(settled)} of {len(settled)}" if settled else "-"
        lines.append(f"{name:<34}" + "".join(f"{cell:>18}" for cell in cells) + f"{verdict:>12}")
    return "\n".join(lines)


def main() -> None:
    """Fit what is not done yet, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default=NETWORKS[0], choices=NETWORKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where results are kept")
    parser.add_argument("--one", type=int, help="fit the posterior of --only with this seed, and print its scores")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.one is not None:
        warnings.simplefilter("ignore")
        print(json.dumps(one(options.network, options.only[0], options.one, options.cache)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    for seed in range(options.seeds):
        for name in options.only:
            path = options.cache / f"{options.network}_{name.replace(' ', '_').replace(',', '')}_{seed}.json"
            if not path.exists():
                asked = {"--network": options.network, "--cache": options.cache, "--only": name, "--one": seed}
                words = [str(word) for pair in asked.items() for word in pair]
                command = [sys.executable, "-m", "tests.benchmarks.posteriors", *words]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own)
                path.write_text(done.stdout.splitlines()[-1])
            found[name].append(json.loads(path.read_text()))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    print(
        f"\n{options.network} on MNIST, shipped prior, {options.seeds} seeds: mean ± standard deviation over seeds; "
        "AUROC against notMNIST, %; minutes of the processor after the point estimate, of ensembles from fresh "
        "weights; "
        f"{torch.get_num_threads()} threads\n{table(found)}"
    )


if __name__ == "__main__":
    main()
