"""One of several processes that share a pass: ``python -m tests.curvature.share RANK COUNT FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.curvature.test_accumulate import BATCH, GUIDES, data, network, outcome
from wiu_pyro.errors import CurvatureError, DataError
from wiu_pyro.guides import AutoKFACLaplace
from wiu_pyro.infer import averaged_curvature
from wiu_pyro.nn import BayesianNetwork, Normal, as_batches


def posteriors() -> dict[str, list[torch.Tensor]]:
    """Every structure; then with less data than processes, and with a loader that shuffles."""
    found = {}
    for name, (guide_class, options) in GUIDES.items():
        torch.manual_seed(5)
        found[name] = outcome(guide_class(network(), **options).laplace_approximation(data()))
    x, y = data()
    sources = {
        "five batches": DataLoader(TensorDataset(x, y), batch_size=BATCH),
        "one batch": (x[:4], y[:4]),
        "shuffled": DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True),
    }
    for name, source in sources.items():
        found[name] = outcome(AutoKFACLaplace(network()).laplace_approximation(source))
    return found


def averaged() -> list[torch.Tensor]:
    """A curvature averaged over outputs, in rounds that end sooner by one half of the data than by the other."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = data()
    guide = AutoKFACLaplace(BayesianNetwork(net, Normal(1.0), num_data=len(x)).eval())
    batches = as_batches((x, y), batch_size=BATCH)
    averaged_curvature.SETTLED = 0.038
    return outcome(averaged_curvature.average_curvature(guide, guide.laplace_approximation(batches), batches, rounds=8))


def refused(folder: Path, rank: int) -> list[str]:
    """What is said where one process's share breaks, and where one has other weights."""
    said = []
    x, y = data()
    x[BATCH + 1] = float("nan")  # in the second batch: process 1
    other = network()
    with torch.no_grad():
        other.net[0].bias += rank
    for model, source in ((network(), DataLoader(TensorDataset(x, y), batch_size=BATCH)), (other, data())):
        try:
            AutoKFACLaplace(model).laplace_approximation(source)
        except (CurvatureError, DataError) as error:
            said.append(str(error))
    return said


def main() -> None:
    rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    if count > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    found = {
        "posteriors": posteriors(),
        "averaged": averaged(),
        "refused": refused(folder, rank) if count > 1 else [],
    }
    torch.save(found, folder / f"{count}-{rank}.pt")
    if count > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
