"""One of several processes that share trainings: ``python -m tests.infer.share RANK COUNT FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pyro.infer import autoguide
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

import wiu_pyro as wiu
from wiu_pyro.errors import DataError, FitError, ModelError
from wiu_pyro.guides import AutoIVON, AutoKFACLaplace, AutoMeanField
from wiu_pyro.infer.training import Training
from wiu_pyro.nn import BayesianNetwork

BATCH = 7  # of 33 data: parts of a batch differ in size, and the last batch is short


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(33, 4, generator=torch.Generator().manual_seed(1))
    return x, x[:, :3].argmax(1)


def network(*, normalised: bool = False) -> BayesianNetwork:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(5)] if normalised else []
    return BayesianNetwork(nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3)))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(*data()), batch_size=BATCH, shuffle=True)  # by the global state


FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "point estimate": (AutoKFACLaplace, {"max_norm": 30.0, "track": "epoch"}),
    "few data": (AutoKFACLaplace, {"source": tuple(part[:8] for part in data())}),  # the last batch has one
    "weights drawn once": (lambda model: AutoMeanField(model, estimator="reparam"), {"kl_warmup": 1, "average": 0.5}),
    "loader": (lambda model: AutoMeanField(model, estimator="reparam"), {"source": loader()}),
    "Pyro's own": (autoguide.AutoNormal, {}),
    "natural gradient": (AutoIVON, {}),
    "noise of single data": (AutoMeanField, {"source": loader(), "patience": 2}),
    "running statistics": (AutoMeanField, {"model": network(normalised=True)}),
}
# as with one process
EXACT = ("point estimate", "few data", "weights drawn once", "loader", "Pyro's own", "natural gradient")


def fit(make: Any, **options: Any) -> wiu.Fit:
    model = options.pop("model", None) or network()
    options = {"epochs": 4, "batch_size": BATCH, "validation": data(), **options}
    return wiu.fit(model, make(model), options.pop("source", data()), **options)


def outcome(found: wiu.Fit) -> dict[str, Any]:
    return {
        "losses": torch.as_tensor(found.losses),
        "nll": torch.as_tensor(found.validation["nll"]),
        "weights": torch.cat([value.reshape(-1) for value in found.point_estimate.values()]),
        "beside": [value for _, value in sorted(found.unsampled.items())],
        "processes": found.settings["num_processes"],
    }


def fits() -> dict[str, dict[str, Any]]:
    return {name: outcome(fit(make, **options)) for name, (make, options) in FITS.items()}


def gradient_and_elbo() -> dict[str, float]:
    """Mean and variance of the loss of one batch over many noises, by local reparametrisation."""
    model = network()
    losses = []
    for seed in range(200):
        guide = AutoMeanField(model)
        losses.append(float(wiu.fit(model, guide, data(), epochs=1, batch_size=33, seed=seed).losses[0]))
    values = torch.tensor(losses, dtype=torch.float64)
    return {"mean": values.mean().item(), "se": (values.std() / len(values) ** 0.5).item()}


def resumed(folder: Path) -> dict[str, Any]:
    """A fit whose processes stop in the third epoch, and go on."""
    path, train = folder / "fit.ckpt", Training._train_epoch

    def cut(self: Training, bar: Any) -> None:
        train(self, bar)
        if self.epoch == 3:
            raise KeyboardInterrupt

    Training._train_epoch = cut
    try:
        fit(AutoMeanField, source=loader(), checkpoint=path)
    except KeyboardInterrupt:
        distributed.barrier()
    finally:
        Training._train_epoch = train
    return {
        "again": outcome(fit(AutoMeanField, source=loader(), checkpoint=path)),
        "whole": outcome(fit(AutoMeanField, source=loader())),
    }


class Unscaled(BayesianNetwork):
    """Its likelihood is that of what it is given."""

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        self.num_data = len(x)
        return super().forward(x, y)


def refused(rank: int) -> list[str]:
    """What is said where the share of one process breaks, where one has other weights, and of a model of its own."""
    said = []
    x, y = data()
    broken = torch.zeros(7, dtype=torch.long)
    broken[6] = 9  # in the part of the second process; a loader's later batches are looked at when they break
    pairs = [*zip(x, y), *zip(x[:7], broken)]
    other = network()
    with torch.no_grad():
        other.net[0].bias += rank
    for model, source in ((network(), DataLoader(pairs, batch_size=BATCH)), (other, data()), (_unscaled(), data())):
        try:
            fit(AutoKFACLaplace, model=model, source=source)
        except (DataError, FitError, ModelError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def _unscaled() -> BayesianNetwork:
    torch.manual_seed(0)
    return Unscaled(nn.Linear(4, 3), num_data=33)


def main() -> None:
    rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    found = {"fits": fits(), "elbo": gradient_and_elbo(), "resumed": resumed(folder), "refused": refused(rank)}
    torch.save(found, folder / f"{count}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
