"""How many weights of the MNIST network 784-400-400-10 can go: ``python -m tests.benchmarks.pruning``.

The mean-field posteriors are those of `tests.benchmarks.vi_quality`: their prior is fixed, and lets a weight that the
data do not need have a scale at which it disturbs nothing. ``--posterior laplace-kfac`` prunes the Laplace posterior
around the point estimate under the shipped prior, ``--posterior sparse-dropout`` that of sparse variational dropout,
which has a prior of its own, as the reference. All is judged on MNIST's test images, pruned in one shot;
``--fine-tune`` adds rows of their own. Trained networks are kept, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import wiu_pyro as wiu
from tests.benchmarks import vi_quality
from tests.benchmarks.cases import networks
from wiu_pyro.datasets import load

Pair = tuple[torch.Tensor, torch.Tensor]
POINT_EPOCHS, WARM_EPOCHS = 8, 5
TRAINING = {"batch_size": 250, "learning_rate": 2e-3}
SPARSITIES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)


def point_estimate(train: Pair, *, seed: int, cache: Path) -> dict[str, torch.Tensor]:
    """Return weights trained under the shipped prior from a seed's first weights."""
    path = cache / f"mlp_point_{POINT_EPOCHS}_{seed}.pt"
    if not path.exists():
        torch.manual_seed(seed)
        _, model = networks("mnist_mlp")
        guide = wiu.guides.AutoLaplace(model, structure={"fc3": "diagonal"})  # only its point estimate is wanted
        fit = wiu.fit(model, guide, train, epochs=POINT_EPOCHS, seed=seed, progress=True, **TRAINING)
        torch.save(fit.point_estimate, path)
    return torch.load(path)


def mean_field(train: Pair, options: argparse.Namespace, *, seed: int) -> wiu.Fit:
    """Return the settled mean-field posterior of a seed, or the one of an earlier run."""
    sets = tuple(load(name, split="test").tensors for name in ("mnist", "notmnist"))
    settings = {"recipe": vi_quality.RECIPES["mnist_mlp"], "cache": options.cache}
    vi_quality.row("mnist_mlp", seed, train, sets, **settings)
    return vi_quality.again("mnist_mlp", seed, train, **settings)


def laplace(train: Pair, options: argparse.Namespace, *, seed: int) -> wiu.Fit:
    """Return a KFAC Laplace posterior around the point estimate."""
    point = point_estimate(train, seed=seed, cache=options.cache)
    _, model = networks("mnist_mlp")
    part = tuple(one[: options.curvature_images] for one in train)  # scaled to all of them
    return wiu.fit(model, wiu.guides.AutoKFACLaplace(model), part, epochs=0, start=point, seed=seed)


def sparse_dropout(train: Pair, options: argparse.Namespace, *, seed: int) -> wiu.Fit:
    """Return a fit of sparse variational dropout from the point estimate, or the one of an earlier run."""
    point = point_estimate(train, seed=seed, cache=options.cache)
    _, model = networks("mnist_mlp")
    guide = wiu.guides.AutoSparseVariationalDropout(model)
    path = options.cache / f"mlp_sparse_dropout_{options.epochs}_{seed}.pt"
    if path.exists():
        fit = wiu.fit(model, guide, train, epochs=0, start=point, seed=seed)
        guide.load_state_dict(torch.load(path))
        return replace(fit, point_estimate=guide.point_estimate())
    settings = {**TRAINING, "kl_warmup": WARM_EPOCHS, "seed": seed, "progress": True}
    fit = wiu.fit(model, guide, train, epochs=WARM_EPOCHS + options.epochs, start=point, **settings)
    removed = {site: f"{100 * float(gone.double().mean()):.2f} %" for site, gone in guide.removed().items()}
    print(f"seed {seed}: log alpha above 3: {removed}; {fit.convergence.detail}", flush=True)
    torch.save(guide.state_dict(), path)
    return fit


MAKERS = {"mean-field": mean_field, "laplace-kfac": laplace, "sparse-dropout": sparse_dropout}


def row(values: xr.DataArray) -> str:
    """Return mean and standard deviation over seeds, in percent, at each share."""
    several = values.expand_dims("chain") if "chain" not in values.dims else values
    table = 100 * several.transpose("chain", "sparsity").values
    spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.full(table.shape[1], np.nan)
    return "".join(f"{mean:>8.2f} ± {sd:<4.2f}" for mean, sd in zip(table.mean(axis=0), spread))


def report(table: xr.Dataset) -> str:
    """Return the table of errors by criterion and share, and of rises beside the unpruned network."""
    shares = "".join(f"{100 * share:>12.1f} %" for share in table["sparsity"].values)
    lines = [f"unpruned error % by seed: {np.atleast_1d(100 * table['unpruned_error'].sel(network='mean').values)}"]
    for name in ("error", "error_difference"):
        lines.append(f"\n{name.replace('_', ' ')}, %: mean ± sd over seeds\n{'weights removed':<44}{shares}")
        for place in product(*(table[dim].values for dim in ("procedure", "ranking", "criterion"))):
            values = table[name].sel(dict(zip(("procedure", "ranking", "criterion"), place))).sel(network="mean")
            lines.append(f"{' '.join(map(str, place)):<44}{row(values)}")
        if f"layer_{name}" in table:
            for layer in table["layer"].values:
                values = table[f"layer_{name}"].sel(layer=layer, criterion="signal_to_noise")
                lines.append(f"{f'{layer} alone, signal_to_noise':<44}{row(values)}")
    return "\n".join([*lines, "", wiu.diagnostics.pruning_statement(table)])


def main() -> None:
    """Train, prune, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posterior", default="mean-field", choices=MAKERS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="of sparse dropout, all the KL on")
    parser.add_argument("--fine-tune", type=int, default=0, metavar="EPOCHS", help="rows of their own; 0: none")
    parser.add_argument("--curvature-images", type=int, default=10_000, help="training images a curvature goes over")
    parser.add_argument("--compensate", action="store_true", help="rows in which the other weights follow")
    parser.add_argument("--criteria", nargs="+", metavar="NAME", help="those alone")
    parser.add_argument("--rankings", nargs="+", default=["global", "uniform"], metavar="NAME")
    parser.add_argument("--sparsities", nargs="+", type=float, default=list(SPARSITIES), metavar="SHARE")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained networks are kept")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.cache.mkdir(parents=True, exist_ok=True)
    train, test = (load("mnist", split=split).tensors for split in ("train", "test"))
    fits = []
    for seed in range(options.seeds):
        began = time.perf_counter()
        fits.append(MAKERS[options.posterior](train, options, seed=seed))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    table = wiu.interventions.prune(
        fits,
        test,
        train_data=train,
        sparsities=tuple(options.sparsities),
        rankings=tuple(options.rankings),
        fine_tune_epochs=options.fine_tune,
        compensate=options.compensate,
        **({"criteria": tuple(options.criteria)} if options.criteria else {}),
    )
    path = options.cache / f"pruning_{options.posterior}.nc"
    table.to_netcdf(path, engine="h5netcdf")
    print(f"\nMLP 2×400 on MNIST, {options.posterior}, {options.seeds} seeds; table in {path}\n{report(table)}")


if __name__ == "__main__":
    main()
