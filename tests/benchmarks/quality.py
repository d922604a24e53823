"""What tuning the prior does to a LeNet-5's predictions, beside laplace-torch: ``python -m tests.benchmarks.quality``.

Each seed trains one network under the shipped prior. The same weights then get the toolkit's KFAC posterior, with the
prior as it is and with its scale tuned by marginal likelihood on the training data, and laplace-torch's. Out of
distribution are the letters of notMNIST; the score is the largest class probability.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import wiu_pyro as wiu
from tests.benchmarks.cases import networks, sequential
from tests.benchmarks.predictions import scores, sets_of_images

Pair = tuple[torch.Tensor, torch.Tensor]
LINKS = {"mc": "softmax by draws", "probit": "probit"}
CASES = (  # name, how the prior is tuned, rounds of averaging the curvature, links
    (", prior as trained", None, 0, ("mc",)),
    (", prior tuned", "marginal-likelihood", 0, ("mc", "probit")),
    (" averaged, prior tuned", "marginal-likelihood", 15, ("mc", "probit")),
)
ROWS = ("NLL", "NLL / point", "error %", "ECE", "AUROC", "AUROC - point")


def bayesian(prior: str) -> wiu.nn.BayesianNetwork:
    """Return an untrained LeNet-5 under a prior: ``"shipped"``, or the sd of a Normal on every weight."""
    plain, shipped = networks("mnist_lenet")
    if prior == "shipped":
        return shipped
    return wiu.nn.BayesianNetwork(plain, prior=wiu.nn.Normal(float(prior)), num_data=60_000)


def trained(prior: str, seed: int, train: Pair, *, epochs: int, cache: Path) -> dict[str, torch.Tensor]:
    """Return weights trained under a prior; kept in `cache`."""
    path = cache / f"lenet_{prior}_{epochs}_{seed}.pt"
    if not path.exists():
        torch.manual_seed(seed)
        model = bayesian(prior)
        guide = wiu.guides.AutoLaplace(model, structure={"fc3": "diagonal"})  # only its point estimate is wanted
        fit = wiu.fit(model, guide, train, epochs=epochs, seed=seed, progress=True)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(fit.point_estimate, path)
    return torch.load(path)


def toolkit(prior: str, point: dict[str, torch.Tensor], train: Pair, sets: tuple[Pair, Pair]) -> Iterator[tuple]:
    """Yield name, images and the probabilities of the point estimate and of each of the toolkit's predictives."""
    for name, tuned, rounds, links in CASES:
        model = bayesian(prior)
        guide = wiu.guides.AutoKFACLaplace(model, tune_prior=tuned)
        fit = wiu.fit(model, guide, train, epochs=0, start=point, curvature_rounds=rounds)
        for link in links:
            known, unknown = (wiu.infer.predict(fit, (x,), link=link) for x, _ in sets)
            if name == CASES[0][0]:
                yield "point estimate", known.point_mean, unknown.point_mean
            yield f"KFAC{name}, {LINKS[link]}", known.mean, unknown.mean


def laplace_torch(point: dict[str, torch.Tensor], train: Pair, sets: tuple[Pair, Pair]) -> Iterator[tuple]:
    """Yield the same of laplace-torch's KFAC over all layers, its prior precision by its own marginal likelihood."""
    from laplace import Laplace
    from laplace.curvature import BackPackGGN

    plain, _ = networks("mnist_lenet")
    plain = sequential(plain)
    plain.load_state_dict(dict(zip(plain.state_dict(), point.values(), strict=True)))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=500)
    options = {"subset_of_weights": "all", "hessian_structure": "kron", "backend": BackPackGGN}
    laplace = Laplace(plain.eval(), "classification", **options)
    laplace.fit(loader)
    laplace.optimize_prior_precision(method="marglik", pred_type="glm")
    found = []
    for x, _ in sets:
        parts = [laplace._glm_predictive_distribution(part) for part in x.split(50)]
        mean, covariance = (torch.cat(values).detach() for values in zip(*parts, strict=True))
        root = torch.linalg.cholesky(covariance.double() + 1e-8 * torch.eye(10)).float()
        noise = torch.randn(200, *mean.shape, generator=torch.Generator().manual_seed(0))
        draws = torch.softmax(mean + torch.einsum("ncd,snd->snc", root, noise), -1).mean(0)
        kappa = (1 + torch.pi / 8 * covariance.diagonal(dim1=-2, dim2=-1)).rsqrt()
        found.append((draws.numpy(), torch.softmax(kappa * mean, -1).numpy()))
    for link, known, unknown in zip(LINKS.values(), *found, strict=True):
        yield f"laplace-torch KFAC, prior tuned, {link}", known, unknown


def table(found: dict[str, dict[int, dict[str, float]]]) -> str:
    """Return mean and standard deviation over seeds of each score; ratios and differences within each seed."""
    point = found["point estimate"]
    lines = [f"{'':<44}" + "".join(f"{name:>18}" for name in ROWS)]
    for name, by_seed in found.items():
        cells = []
        for row in ROWS:
            score, _, against = row.partition(" / " if "/" in row else " - ")
            values = np.array([by_seed[seed][score] for seed in by_seed])
            if against:
                base = np.array([point[seed][score] for seed in by_seed])
                values = values / base if "/" in row else values - base
            cells.append(f"{values.mean():.4f} ± {values.std(ddof=1) if len(values) > 1 else np.nan:.4f}")
        lines.append(f"{name:<44}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Train, tune, predict, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="1.0", help="sd of a Normal on every weight, or 'shipped'")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--curvature-images", type=int, default=10_000, help="training images each curvature goes over")
    parser.add_argument("--images", type=int, default=10_000, help="of each test set")
    parser.add_argument(
        "--peer-images", type=int, default=1_000, help="of each test set, beside laplace-torch; 0: none"
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained networks are kept")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test, letters = sets_of_images()
    sets = tuple((x[: options.images], y[: options.images]) for x, y in (test, letters))
    first = tuple((x[: options.peer_images], y[: options.peer_images]) for x, y in sets)
    found: dict[str, dict[int, dict[str, float]]] = {}
    beside: dict[str, dict[int, dict[str, float]]] = {}
    for seed in range(options.seeds):
        point = trained(options.prior, seed, train, epochs=options.epochs, cache=options.cache)
        began = time.perf_counter()
        part = tuple(one[: options.curvature_images] for one in train)
        for name, known, unknown in toolkit(options.prior, point, part, sets):
            found.setdefault(name, {})[seed] = scores(known, sets[0][1].numpy(), unknown)
            if options.peer_images:
                few = slice(options.peer_images)
                beside.setdefault(name, {})[seed] = scores(known[few], first[0][1].numpy(), unknown[few])
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s after training", flush=True)
        if options.peer_images:
            for name, known, unknown in laplace_torch(point, train, first):
                beside.setdefault(name, {})[seed] = scores(known, first[0][1].numpy(), unknown)
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s with laplace-torch", flush=True)
    print(f"\nLeNet-5 on MNIST, prior {options.prior}, {options.seeds} seeds, mean ± standard deviation over seeds")
    for number, values in ((options.images, found), (options.peer_images, beside)):
        if values:
            print(f"\nfirst {number:,} images of MNIST's test set and of notMNIST's\n{table(values)}")


if __name__ == "__main__":
    main()
