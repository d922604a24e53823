"""Mean-field VI beside other packages, at equal prior, temperature and time: ``python -m tests.benchmarks.vi_peers``.

All start at the same point estimate with the same sd, under one prior, and train on whole MNIST for the same processor
time, in batches of one size, their learning rate falling to zero along a cosine over the second half of it. −ELBO and
error are taken from means and sds by one piece of code. ``--prior scales`` is the mixture of
`tests.benchmarks.vi_quality`, which only Pyro's own guide can take beside the toolkit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from tests.benchmarks.cases import NETWORKS, networks
from tests.benchmarks.predictions import scores, sets_of_images
from tests.benchmarks.vi_quality import POINT_EPOCHS, point_estimate
from tests.benchmarks.vi_trainers import OF_ANY_PRIOR, TRAINERS, Pair, Posterior, Task, Trainer, divergence

BATCH = 250
COLUMNS = {"error %": 2, "NLL": 4, "ECE": 4, "AUROC": 2, "KL": 3, "-ELBO": 3, "epochs": 1}


def trained(trainer: Trainer, train: Pair, *, seconds: float) -> float:
    """Train for so many seconds of the processor; return the passes over the data."""
    began, steps, spent = time.process_time(), 0, 0.0
    while spent < seconds:
        for rows in torch.randperm(len(train[0])).split(BATCH):
            spent = time.process_time() - began
            if spent >= seconds:
                break
            fraction = 1.0 if spent < seconds / 2 else 0.5 * (1 - math.cos(2 * math.pi * spent / seconds))
            trainer.step((train[0][rows], train[1][rows]), fraction)
            steps += 1
    return steps * BATCH / len(train[0])


@torch.no_grad()
def figures(task: Task, posterior: Posterior, train: Pair, sets: tuple[Pair, Pair]) -> dict[str, float]:
    """Return scores of the mean softmax over 100 draws, and KL and −ELBO per training image, over 20 of them."""
    posterior = {name: (mean.detach(), sd.detach()) for name, (mean, sd) in posterior.items()}
    known, unknown, loss = torch.zeros(len(sets[0][0]), 10), torch.zeros(len(sets[1][0]), 10), 0.0
    for draw in range(100):
        weights = {name: torch.normal(mean, sd) for name, (mean, sd) in posterior.items()}
        for total, (x, _) in zip((known, unknown), sets, strict=True):
            for place, part in zip(total.split(2000), x.split(2000), strict=True):
                place += functional_call(task.plain, weights, part).softmax(-1) / 100
        if draw < 20:
            for x, y in zip(train[0].split(2000), train[1].split(2000), strict=True):
                loss += (
                    nn.functional.cross_entropy(functional_call(task.plain, weights, x), y, reduction="sum").item() / 20
                )
    kl = divergence(posterior, task.prior_sd).item() / len(train[0])
    found = scores(known.numpy(), sets[0][1].numpy(), unknown.numpy())
    return found | {"KL": kl, "-ELBO": loss / len(train[0]) + kl}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return a row for each package."""
    lines = [f"{'':<26}" + "".join(f"{name:>12}" for name in COLUMNS)]
    for name, found in rows.items():
        lines.append(f"{name:<26}" + "".join(f"{found[key]:>12.{digits}f}" for key, digits in COLUMNS.items()))
    return "\n".join(lines)


def main() -> None:
    """Train each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS, nargs="?", default="mnist_mlp")
    parser.add_argument("--minutes", type=float, default=10, help="of processor time for each")
    parser.add_argument("--prior", default="0.1", help="sd of every weight, or 'scales'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where figures are kept")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test, letters = sets_of_images()
    torch.manual_seed(options.seed)
    plain, _ = networks(options.network)
    generator = torch.Generator().manual_seed(options.seed)
    point_estimate(plain, train, epochs=POINT_EPOCHS, generator=generator)
    options.cache.mkdir(parents=True, exist_ok=True)
    mixed = options.prior == "scales"
    task = Task(plain, len(train[0]), None if mixed else float(options.prior))
    rows: dict[str, dict[str, float]] = {}
    for name in OF_ANY_PRIOR if mixed else TRAINERS:
        stem = f"{options.network}_{options.prior}_{name.replace(' ', '_')}_{options.minutes:g}_{options.seed}"
        path = options.cache / f"{stem}.json"
        if not path.exists():
            torch.manual_seed(options.seed)
            trainer = TRAINERS[name](task)
            epochs = trained(trainer, train, seconds=60 * options.minutes)
            found = figures(task, trainer.posterior(), train, (test, letters))
            path.write_text(json.dumps(found | {"epochs": epochs}))
        rows[name] = json.loads(path.read_text())
        prior = "a mixture of scales" if mixed else f"N(0, {options.prior}²)"
        print(f"\n{options.network}, {prior}, seed {options.seed}, {options.minutes:g} minutes each")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
