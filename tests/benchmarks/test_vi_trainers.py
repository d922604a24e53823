"""Mean-field VI beside other packages: all start at one posterior, move it, and are judged by one KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as td
from torch import nn

from tests.benchmarks import vi_quality, vi_trainers


def _plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))


@pytest.mark.parametrize("name", list(vi_trainers.TRAINERS))
def test_each_package_starts_at_the_same_posterior_and_moves_it(name: str) -> None:
    plain = _plain()
    trainer = vi_trainers.TRAINERS[name](vi_trainers.Task(plain, 100))
    start = {key: tuple(part.detach().clone() for part in pair) for key, pair in trainer.posterior().items()}
    assert start.keys() == dict(plain.named_parameters()).keys()
    for key, value in plain.named_parameters():
        torch.testing.assert_close(start[key][0], value.detach())
        torch.testing.assert_close(start[key][1], torch.full_like(value, vi_trainers.START_SD))
    batch = torch.rand(4, 1, 28, 28), torch.arange(4)
    for _ in range(2):
        trainer.step(batch, 1.0)
    moved = trainer.posterior()
    assert all((moved[key][0] != start[key][0]).any() for key in start)
    assert all((moved[key][1] != start[key][1]).any() for key in start)


def test_divergence_is_the_sum_of_the_kls_of_all_weights() -> None:
    posterior = {"a": (torch.randn(3, 2), torch.rand(3, 2) + 0.1), "b": (torch.randn(2), torch.rand(2) + 0.1)}
    prior = td.Normal(0.0, 0.3)
    expected = sum(td.kl_divergence(td.Normal(*pair), prior).sum() for pair in posterior.values())
    torch.testing.assert_close(vi_trainers.divergence(posterior, 0.3), expected)


@pytest.mark.parametrize("name", vi_trainers.OF_ANY_PRIOR)
def test_under_a_mixture_of_scales_too(name: str) -> None:
    plain = _plain()
    trainer = vi_trainers.TRAINERS[name](vi_trainers.Task(plain, 100, prior_sd=None))
    start = trainer.posterior()
    for _, sd in start.values():
        torch.testing.assert_close(sd.detach(), torch.full_like(sd, vi_trainers.START_SD))
    trainer.step((torch.rand(4, 1, 28, 28), torch.arange(4)), 1.0)
    assert all(torch.isfinite(mean).all() for mean, _ in trainer.posterior().values())


def test_divergence_from_a_mixture_is_that_by_quadrature() -> None:
    """Of one weight, by many equal ones: the mean over draws is within four standard errors of the integral."""
    mean, sd, num = 0.05, 0.03, 20_000
    posterior = {"a.weight": (torch.full((num,), mean), torch.full((num,), sd))}
    torch.manual_seed(0)
    found = vi_trainers.divergence(posterior, None).item() / num
    at = np.linspace(mean - 8 * sd, mean + 8 * sd, 4001)
    log_prior = np.logaddexp.reduce(stats.norm.logpdf(at[:, None], 0, vi_quality.SCALES), axis=1) - np.log(7)
    terms, weights = stats.norm.logpdf(at, mean, sd) - log_prior, stats.norm.pdf(at, mean, sd) * (at[1] - at[0])
    expected = (weights * terms).sum()
    error = np.sqrt((weights * (terms - expected) ** 2).sum() / (num * vi_trainers.KL_DRAWS))
    assert abs(found - expected) < 4 * error
