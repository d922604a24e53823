"""How good the networks of mean-field VI are: ``python -m tests.benchmarks.vi_quality mnist_mlp``.

Each seed trains a point estimate and, from its weights, a mean-field posterior under a zero-mean prior that is fixed
before any data are seen: each weight's scale is one of seven from 0.0025 to 0.63, a constant ratio apart and equally
likely; biases are N(0, 1). No augmentation, temperature 1, all of the KL's weight from the warm-up's end on.
Predictions are the mean softmax over networks drawn; out of distribution are the letters of notMNIST, scored by the
largest class probability. A run that was stopped goes on from its cache, with its time added up.

KL and −ELBO stand in nats per training image: over the weights and which scale each has, which is what is trained, with
the least that any weights can have; and over the weights alone, by draws.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

import wiu_pyro as wiu
from tests.benchmarks.cases import NETWORKS, networks
from tests.benchmarks.predictions import scores, sets_of_images
from wiu_pyro.infer.convergence import assess

Pair = tuple[torch.Tensor, torch.Tensor]
SCALES = tuple(0.0025 * (0.63 / 0.0025) ** (step / 6) for step in range(7))
PRIOR = {"*.weight": wiu.nn.NormalMixture(SCALES, (1 / 7,) * 7), "*.bias": wiu.nn.Normal(1.0)}
POINT_EPOCHS = 8
DRAWS, KL_DRAWS = 100, 10
FIGURES = {  # key: name in the table, decimals
    "error %": ("error, %", 2),
    "NLL": ("NLL", 4),
    "ECE": ("ECE", 4),
    "AUROC": ("AUROC against notMNIST, %", 2),
    "KL": ("KL, weights and scales", 3),
    "-ELBO": ("-ELBO, weights and scales", 3),
    "least KL": ("least KL of any weights", 3),
    "KL alone": ("KL, weights alone", 3),
    "-ELBO alone": ("-ELBO, weights alone", 3),
    "change %": ("change of the rest of -ELBO, %", 2),
    "minutes": ("minutes", 1),
    "CPU minutes": ("minutes of the processor", 1),
    "GB": ("peak memory, GB", 2),
}


@dataclass(frozen=True)
class Recipe:
    """How the posterior is trained: its learning rate falls to zero, then it settles at a constant tenth of the rate.

    Attributes
    ----------
    epochs, kl_warmup, batch_size : int
    learning_rate, log_scale_rate : float
        As in `FitConfig`.
    settling : int
        Epochs at a tenth of the learning rate, by which convergence is judged.
    init_scale : float
        Initial sd as a fraction of the prior's.
    """

    epochs: int
    settling: int = 40
    kl_warmup: int = 6
    batch_size: int = 250
    learning_rate: float = 2e-3
    log_scale_rate: float = 2.0
    init_scale: float = 0.04


RECIPES = {"mnist_mlp": Recipe(epochs=40), "mnist_lenet": Recipe(epochs=40)}


class Clock:
    """Wall-clock and processor time of a block, added up in a file every few seconds: a killed run's counts too.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = json.loads(path.read_text()) if path.exists() else [0.0, 0.0]
        self.over = threading.Event()

    def spent(self) -> list[float]:
        """Return seconds by the wall clock and of the processor."""
        now = time.perf_counter(), time.process_time()
        return [old + new - start for old, new, start in zip(self.before, now, self.start, strict=True)]

    def __enter__(self) -> Clock:
        self.start = time.perf_counter(), time.process_time()
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        self._write()

    def _keep(self) -> None:
        while not self.over.wait(5):
            self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.spent()))


def point_estimate(net: nn.Module, train: Pair, *, epochs: int, generator: torch.Generator) -> None:
    """Train a plain network by Adam, its learning rate falling from 1e-3 to 0 along a cosine."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    total, step = epochs * (len(train[0]) // 128), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0]), generator=generator).split(128)[: total // epochs]:
            optimiser.param_groups[0]["lr"] = 0.5e-3 * (1 + math.cos(math.pi * step / total))
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(train[0][rows]), train[1][rows]).backward()
            optimiser.step()
            step += 1


def figures(fit: wiu.infer.Fit, train: Pair) -> dict[str, float]:
    """Return KL and −ELBO per image with the KL's least, and how much what is above it still changed, in per cent."""
    guide, num_data = fit.guide, len(train[0])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kl = guide.kl_divergence().item()
        alone = np.mean([guide.kl_divergence(draw).item() for draw in guide.get_posterior().sample((KL_DRAWS,))])
        losses = [guide.negative_elbo(x, y).item() for x, y in zip(*(part.split(1000) for part in train), strict=True)]
    return {
        "KL": kl / num_data,
        "-ELBO": float(np.mean(losses)) / num_data,
        "least KL": guide.loss_offset() / num_data,
        "KL alone": alone / num_data,
        "-ELBO alone": (float(np.mean(losses)) - kl + alone) / num_data,
        "change %": 100 * fit.convergence.change,
        "converged": bool(fit.convergence.converged),
    }


def fitted(network: str, seed: int, train: Pair, *, recipe: Recipe, cache: Path) -> tuple[wiu.infer.Fit, list[float]]:
    """Return the posterior of a seed, and the seconds it took by the wall clock and of the processor."""
    cache.mkdir(parents=True, exist_ok=True)
    place, point = cache / f"{network}_{recipe.epochs}_{seed}", cache / f"{network}_point_{seed}.pt"
    torch.manual_seed(seed)
    net, _ = networks(network)
    options: dict[str, Any] = {
        "seed": seed,
        "batch_size": recipe.batch_size,
        "log_scale_rate": recipe.log_scale_rate,
    }
    with Clock(place.with_suffix(".seconds")) as clock:
        if point.exists():
            net.load_state_dict(torch.load(point))
        else:
            generator = torch.Generator().manual_seed(seed)
            point_estimate(net, train, epochs=POINT_EPOCHS, generator=generator)
            torch.save(net.state_dict(), point)
        model = wiu.nn.BayesianNetwork(net, prior=PRIOR, num_data=len(train[0]))
        guide = wiu.guides.AutoMeanField(model, scale_indicators=True, init_scale=recipe.init_scale)
        before = place.with_suffix(".pt")
        if before.exists():
            guide(*(part[:2] for part in train))
            guide.load_state_dict(torch.load(before))
        else:
            falling = {"learning_rate": recipe.learning_rate, "kl_warmup": recipe.kl_warmup}
            checkpoint = place.with_suffix(".checkpoint")
            wiu.fit(model, guide, train, epochs=recipe.epochs, checkpoint=checkpoint, **falling, **options)
            torch.save(guide.state_dict(), before)
        settling = {"learning_rate": recipe.learning_rate / 10, "schedule": "constant"}
        checkpoint = place.with_suffix(".settling")
        fit = wiu.fit(model, guide, train, epochs=recipe.settling, checkpoint=checkpoint, **settling, **options)
    return fit, clock.spent()


def row(network: str, seed: int, train: Pair, sets: tuple[Pair, Pair], *, recipe: Recipe, cache: Path) -> dict:
    """Return the figures of one seed, from the cache where they stand there."""
    path = cache / f"{network}_{recipe.epochs}_{recipe.settling}_{seed}.json"
    if not path.exists():
        fit, (wall, processor) = fitted(network, seed, train, recipe=recipe, cache=cache)
        torch.save(fit.guide.state_dict(), path.with_suffix(".pt"))
        known, unknown = (wiu.infer.predict(fit, (x,), num_samples=DRAWS, seed=seed).mean for x, _ in sets)
        found = scores(known, sets[0][1].numpy(), unknown) | figures(fit, train)
        found |= {"minutes": wall / 60, "CPU minutes": processor / 60, "losses": fit.losses.tolist()}
        found["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def again(network: str, seed: int, train: Pair, *, recipe: Recipe, cache: Path) -> wiu.infer.Fit:
    """Return the posterior of a seed that `row` has finished, without training."""
    path = cache / f"{network}_{recipe.epochs}_{recipe.settling}_{seed}.json"
    net, _ = networks(network)
    model = wiu.nn.BayesianNetwork(net, prior=PRIOR, num_data=len(train[0]))
    guide = wiu.guides.AutoMeanField(model, scale_indicators=True, init_scale=recipe.init_scale)
    fit = wiu.fit(model, guide, train, epochs=0, seed=seed)
    guide.load_state_dict(torch.load(path.with_suffix(".pt")))
    losses = np.array(json.loads(path.read_text())["losses"])
    verdict = assess(losses - guide.loss_offset())
    return replace(fit, point_estimate=guide.point_estimate(), losses=losses, convergence=verdict)


def table(rows: dict[int, dict[str, float]]) -> str:
    """Return the figures of each seed, and their mean and standard deviation over seeds."""
    header = [f"seed {seed}" for seed in rows] + (["mean", "sd"] if len(rows) > 1 else [])
    lines = [f"{'':<30}" + "".join(f"{name:>10}" for name in header)]
    for key, (name, digits) in FIGURES.items():
        values = [found[key] for found in rows.values()]
        if len(rows) > 1:
            values += [np.mean(values), np.std(values, ddof=1)]
        lines.append(f"{name:<30}" + "".join(f"{value:>10.{digits}f}" for value in values))
    verdicts = ("yes" if found["converged"] else "no" for found in rows.values())
    lines.append(f"{'converged':<30}" + "".join(f"{verdict:>10}" for verdict in verdicts))
    return "\n".join(lines)


def main() -> None:
    """Train, predict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="other than the recipe's")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where runs and their figures lie")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    recipe = RECIPES[options.network]
    if options.epochs is not None:
        recipe = Recipe(epochs=options.epochs)
    train, test, letters = sets_of_images()
    found: dict[int, dict[str, float]] = {}
    for seed in options.seeds:
        found[seed] = row(options.network, seed, train, (test, letters), recipe=recipe, cache=options.cache)
        print(f"\n{options.network}, {recipe}\n{table(found)}", flush=True)


if __name__ == "__main__":
    main()
