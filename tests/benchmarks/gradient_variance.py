"""How noisy each estimator's gradient is: ``python -m tests.benchmarks.gradient_variance``.

A shipped network is trained by mean-field inference for a few epochs; then, at these parameters, each estimator gives
gradients again and again: of one batch, whose variance is the weight noise's alone, and of a new batch each time, as in
training. Variances are summed over the parameters and divided by those of one draw of the weights for the batch.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import torch

import wiu_pyro as wiu
from tests.benchmarks.cases import NETWORKS, networks
from tests.benchmarks.curvature_cases import Images, images
from wiu_pyro.guides.output_noise import RULES

__all__ = ["CASES", "gradient_variances"]

BASE = "reparam"
CASES: dict[str, dict[str, int | str]] = {
    BASE: {"estimator": BASE},
    "reparam, 4 particles": {"estimator": BASE, "num_particles": 4},
    **{name: {"estimator": name} for name in RULES if name != BASE},
    "local, 4 particles": {"estimator": "local", "num_particles": 4},
}
Batch = tuple[torch.Tensor, torch.Tensor]


def gradient_variances(guide: wiu.guides.AutoMeanField, batches: Iterator[Batch], *, num_draws: int) -> torch.Tensor:
    """Return the variance of −ELBO's gradient, summed over the weights: for means and for log sds.

    Parameters
    ----------
    guide : AutoMeanField
    batches : iterator of tuple of Tensor
        One for each gradient.
    num_draws : int

    Returns
    -------
    Tensor, shape (2,)
    """
    total = torch.zeros(2, len(guide.loc), dtype=torch.float64)
    squares = torch.zeros_like(total)
    for _ in range(num_draws):
        loss = guide.negative_elbo(*next(batches))
        gradient = torch.stack(torch.autograd.grad(loss, [guide.loc, guide.log_scale])).double()
        total += gradient
        squares += gradient.square()
    return ((squares - total.square() / num_draws) / (num_draws - 1)).sum(1)


def _same(data: Images) -> Iterator[Batch]:
    while True:
        yield data.x[:128], data.y[:128]


def _new(data: Images) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    while True:
        rows = torch.randint(len(data.x), (128,), generator=generator)
        yield data.x[rows], data.y[rows]


def _print_network(name: str, data: Images, *, epochs: int, num_draws: int) -> None:
    _, model = networks(name)
    model.num_data = len(data.x)
    guide = wiu.guides.AutoMeanField(model)
    wiu.fit(model, guide, (data.x, data.y), epochs=epochs, seed=0)
    print(f"\n{name}: {len(data.x):,} images ({data.name}), after {epochs} epochs; {num_draws} gradients, batch 128")
    print(f"{'variance / that of ' + BASE:<24}  one batch: means  log sds    new batches: means  log sds")
    sources: tuple[Callable[[Images], Iterator[Batch]], ...] = (_same, _new)
    base: list[torch.Tensor] = []
    for case, options in CASES.items():
        guide.estimator, guide.num_particles = str(options["estimator"]), int(options.get("num_particles", 1))
        torch.manual_seed(0)
        found = [gradient_variances(guide, source(data), num_draws=num_draws) for source in sources]
        base = base or found
        (means, sds), (new_means, new_sds) = ((variance / one).tolist() for variance, one in zip(found, base))
        print(f"{case:<24}           {means:7.3f}  {sds:7.3f}             {new_means:7.3f}  {new_sds:7.3f}")


def main() -> None:
    """Measure all estimators on all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="of training before (default: 3)")
    parser.add_argument("--images", type=int, default=10_000, help="to train on (default: 10000)")
    parser.add_argument("--draws", type=int, default=100, help="gradients of each estimator (default: 100)")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in NETWORKS:
        _print_network(name, images().first(asked.images), epochs=asked.epochs, num_draws=asked.draws)


if __name__ == "__main__":
    main()
