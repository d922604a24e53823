"""`AutoIVON` against the authors' package, ivon-opt: the same noise, step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from wiu_pyro.guides import AutoIVON
from wiu_pyro.nn import BayesianNetwork, Normal

ivon = pytest.importorskip("ivon")

SIZES = (4, 6, 3)
NUM_DATA = 40
BATCH = 10
Data = list[tuple[torch.Tensor, torch.Tensor]]
PRIOR_SD = {"0.weight": 0.5, "0.bias": 1.25, "2.weight": 0.75, "2.bias": 2.0}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(*SIZES[:2]), nn.Tanh(), nn.Linear(*SIZES[1:])).double()


def batches() -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM_DATA, SIZES[0], generator=generator, dtype=torch.float64)
    y = torch.randint(SIZES[-1], (NUM_DATA,), generator=generator)
    return [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, NUM_DATA, BATCH)] * 5


def theirs(
    net: nn.Module, data: Data, *, temperature: float, num_samples: int, **options
) -> list[tuple[torch.Tensor, ...]]:
    """Train with one group of parameters for each prior; return mean, Hessian and momentum after each step."""
    ess = NUM_DATA / temperature
    groups = [
        {"params": [value], "weight_decay": 1 / (ess * PRIOR_SD[name] ** 2)} for name, value in net.named_parameters()
    ]
    optimiser = ivon.IVON(groups, ess=ess, mc_samples=num_samples, **options)
    found = []
    for x, y in data:
        for _ in range(num_samples):
            with optimiser.sampled_params(train=True):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
        mean = torch.cat([value.detach().reshape(-1) for value in net.parameters()])
        found.append(
            (mean, *(torch.cat([group[name] for group in optimiser.param_groups]) for name in ("hess", "momentum")))
        )
    return found


def ours(
    net: nn.Module, data: Data, *, temperature: float, num_samples: int, lr: float, **options
) -> list[tuple[torch.Tensor, ...]]:
    model = BayesianNetwork(net, {name: Normal(sd) for name, sd in PRIOR_SD.items()}, num_data=NUM_DATA)
    guide = AutoIVON(model, temperature=temperature, num_samples=num_samples, **options)
    guide.setup(data[0])
    optimiser = guide.make_optimiser(list(guide.parameters()), lr)
    found = []
    for batch in data:
        optimiser.zero_grad()
        guide.negative_elbo(*batch).backward()
        optimiser.step()
        found.append((guide.loc.detach().clone(), guide.hess.clone(), guide.momentum / NUM_DATA))
    return found


def same_noise(monkeypatch) -> None:
    """Let ivon-opt, which draws group by group, take the parts of what is drawn for all weights at once."""
    sizes = [value.numel() for value in network().parameters()]
    one, other = (torch.Generator().manual_seed(2) for _ in range(2))

    def draw(generator: torch.Generator) -> torch.Tensor:
        return torch.empty(sum(sizes), dtype=torch.float64).normal_(generator=generator)

    parts: list[torch.Tensor] = []

    def part(size: int, **_) -> torch.Tensor:
        if not parts:
            parts.extend(draw(other).split(sizes))
        return parts.pop(0)

    monkeypatch.setattr(torch, "randn_like", lambda _: draw(one))
    monkeypatch.setattr(torch, "randn", part)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("clip_radius", [float("inf"), 1e-3])
def test_each_step_is_that_of_ivon_opt(monkeypatch, num_samples, temperature, clip_radius):
    """Mean, Hessian and momentum agree to rounding, each weight under the prior sd of its own site."""
    options = {"lr": 0.3, "hess_init": 0.75, "clip_radius": clip_radius}
    net, data = network(), batches()
    same_noise(monkeypatch)
    expected = theirs(
        copy.deepcopy(net), data, temperature=temperature, num_samples=num_samples, beta1=0.9, beta2=0.995, **options
    )
    found = ours(net, data, temperature=temperature, num_samples=num_samples, betas=(0.9, 0.995), **options)
    assert len(found) == 20
    for one, other in zip(found, expected, strict=True):
        for mine, their in zip(one, other, strict=True):
            torch.testing.assert_close(mine, their, rtol=1e-10, atol=1e-12)
