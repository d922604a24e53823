"""Sums and entries of draws without the draws are those of the draws themselves."""

from __future__ import annotations

import pytest
import torch

from tests.linalg.test_precision import KINDS, make, random
from wiu_pyro.linalg import EigenbasisPrecision, row_norms, whitened_draws

INDICES = {"few": [4, 0, 3], "all": None}


def priors(operator: object) -> dict[str, torch.Tensor]:
    numel = operator.numel
    found = {"another": random(numel, seed=3).abs() + 0.5}
    if isinstance(operator, EigenbasisPrecision):
        found["its own"] = operator.whitener.expand(operator.matrix_shape).reshape(-1)
    return found


def cases() -> list[tuple[str, str]]:
    return [(kind, which) for kind in KINDS for which in ("another", "its own") if which in priors(make(kind)[0])]


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize(("kind", "prior"), cases())
def test_sums_and_entries_are_those_of_coloured_noise(kind: str, prior: str, index: list[int] | None) -> None:
    operator, _ = make(kind)
    scale, noise = priors(operator)[prior], random(4, operator.numel, seed=1)
    asked = torch.arange(operator.numel) if index is None else torch.tensor(index)
    expected = operator.colour(noise)
    draws = whitened_draws(operator, scale, asked)
    found = draws.coordinates(noise.clone())
    torch.testing.assert_close(found.square().sum(1), (expected / scale).square().sum(1))
    torch.testing.assert_close(draws.entries(found), expected[:, asked])
    centre = random(operator.numel, seed=2)
    torch.testing.assert_close(found @ draws.rotated(centre), (expected / scale) @ centre)


def test_the_way_back_is_taken_for_the_asked_entries_alone() -> None:
    operator, _ = make("kronecker")
    scale = priors(operator)["its own"]
    operator.colour = lambda *_: pytest.fail("made a draw of all weights")
    draws = whitened_draws(operator, scale, torch.tensor([1]))
    assert draws.entries(draws.coordinates(random(2, operator.numel))).shape == (2, 1)


@pytest.mark.parametrize("numel", [1, 4_096, 10_000])
def test_row_norms_are_summed_in_double_precision(numel: int) -> None:
    values = random(2, numel).float()
    expected = values.double().square().sum(1)
    assert row_norms(values).dtype == torch.float64
    torch.testing.assert_close(row_norms(values), expected, rtol=1e-6, atol=0.0)
