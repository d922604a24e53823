"""Peak memory of Kronecker factors of VGG-16 at CIFAR size, beside that of a gradient: each in a process of its own.

``python -m tests.benchmarks.memory gradient`` (or ``factors``) prints the most memory that the process held beyond what
it held before the network was made, and the bytes of the factors.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from torch import nn

from wiu_pyro.curvature import CapturedBatch, CurvaturePass, KroneckerFactors, Portions, read, rule_for

__all__ = ["MEMORY_BAR", "measured", "peak_memory"]

MEMORY_BAR = 2.5  # times a gradient's, plus the factors
NUM_IMAGES, BATCH_SIZE = 256, 128


def vgg16() -> nn.Module:
    """Return VGG-16's convolutions and one linear layer: 14.7 million weights."""
    import torchvision

    return nn.Sequential(torchvision.models.vgg16().features, nn.Flatten(), nn.Linear(512, 10)).eval()


def _held() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _gradient(net: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> int:
    for x, y in batches:
        net.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
    return 0


def _factors(net: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> int:
    import pyro.distributions as dist

    layers = {name: layer for name, layer in net.named_modules() if list(layer.parameters(recurse=False))}
    rules = {
        name: rule_for(layer, {key: tuple(value.shape) for key, value in layer.named_parameters()})
        for name, layer in layers.items()
    }
    sums = {name: KroneckerFactors(rule) for name, rule in rules.items()}
    generator = torch.Generator().manual_seed(0)
    shown: CapturedBatch | None = None
    for shown in CurvaturePass(lambda batch: read(dist.Categorical(logits=net(batch[0]))), layers).run(
        batches,
        lambda likelihood, _: likelihood.columns("fisher_mc", labels=None, generator=generator),
        portions=Portions.fitting(torch.device("cpu"), alone=True),
    ):
        for name, one in sums.items():
            one.take(name, shown)
        shown = None
    return sum(value.nbytes for one in sums.values() for value in one.sums().values())


def peak_memory(what: str, *, num_images: int = NUM_IMAGES) -> tuple[int, int]:
    """Return the most memory this process held from here on beyond what it holds now, and the bytes of the factors.

    Parameters
    ----------
    what : {"gradient", "factors"}
    num_images : int

    Returns
    -------
    peak, factors : int
        In bytes.
    """
    torch.manual_seed(0)
    batches = list(
        zip(torch.rand(num_images, 3, 32, 32).split(BATCH_SIZE), torch.randint(10, (num_images,)).split(BATCH_SIZE))
    )
    _gradient(nn.Linear(4, 2), [(torch.ones(2, 4), torch.zeros(2).long())])  # what a first use loads
    before = _held()
    factors = {"gradient": _gradient, "factors": _factors}[what](vgg16(), batches)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, factors


def measured() -> dict[str, tuple[int, int]]:
    """Return peak memory and bytes of factors of both, each measured in a process of its own."""
    found = {}
    for what in ("gradient", "factors"):
        command = [sys.executable, "-m", "tests.benchmarks.memory", what]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
        peak, factors = answer.split()[-2:]
        found[what] = int(peak), int(factors)
    return found


if __name__ == "__main__":
    print(*peak_memory(sys.argv[1]))
