"""Prior scales learned by empirical Bayes on scikit-learn's digits: ``python -m tests.benchmarks.empirical_bayes``.

Mean field on a network 64-64-64-10 with ReLU under the shipped prior: as it is; with each layer's scale put where the
ELBO is greatest from the first epoch on; and as ``tune_prior="empirical-bayes"`` has it, which waits and goes a part of
the way. Figures are means over seeds; test images are predicted by 50 networks drawn.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro import metrics
from wiu_pyro.datasets import load

CASES: dict[str, Any] = {
    "as it is": None,
    "at once": wiu.guides.PriorTuning("empirical-bayes", per="layer", when="online", burn_in=1, learning_rate=1.0),
    "empirical-bayes": "empirical-bayes",
}
COLUMNS = {"error %": 1, "NLL": 3, "-ELBO": 3, "KL": 3}
DRAWS = 50


def figures(case: str, seed: int, *, epochs: int) -> dict[str, float]:
    """Return error in percent and NLL on test images, −ELBO and KL in nats per training image, and the verdict."""
    train, test = (load("digits", split=split).tensors for split in ("train", "test"))
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    model = wiu.nn.BayesianNetwork(nn.Sequential(*layers))
    settings = {"epochs": epochs, "learning_rate": 5e-3, "log_scale_rate": 4.0, "seed": seed}
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), train, tune_prior=CASES[case], **settings)
    probabilities = wiu.infer.predict(fit, test, kind="sampled", num_samples=DRAWS, seed=0).mean
    labels = test[1].numpy()
    return {
        "error %": 100 * (1 - metrics.accuracy(probabilities, labels)),
        "NLL": metrics.nll(probabilities, labels),
        "-ELBO": fit.losses[-1] / len(train[1]),
        "KL": fit.guide.kl_divergence().item() / len(train[1]),
        "converged": bool(fit.convergence.converged),
    }


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the mean over seeds of each figure, and how many fits had converged."""
    lines = [f"{'prior':<18}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'converged':>12}"]
    for case, rows in found.items():
        means = "".join(f"{np.mean([row[name] for row in rows]):>10.{digits}f}" for name, digits in COLUMNS.items())
        lines.append(f"{case:<18}{means}{sum(row['converged'] for row in rows):>7} of {len(rows)}")
    return "\n".join(lines)


def main() -> None:
    """Fit all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {case: [figures(case, seed, epochs=options.epochs) for seed in range(options.seeds)] for case in CASES}
    print(f"digits, 64-64-64-10, {options.epochs} epochs, {options.seeds} seeds\n{table(found)}")


if __name__ == "__main__":
    main()
