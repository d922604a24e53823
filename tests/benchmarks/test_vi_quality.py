"""The measure of VI's quality: its floor, its clock, its table, and that a finished seed is not run again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.benchmarks import vi_quality
from wiu_pyro.nn import NormalMixture


def test_the_prior_has_zero_means_and_adds_up_to_one() -> None:
    prior = vi_quality.PRIOR["*.weight"]
    assert isinstance(prior, NormalMixture)
    assert math.fsum(prior.probabilities) == pytest.approx(1)
    assert (prior.scales[0], prior.scales[-1]) == pytest.approx((0.0025, 0.63))


def test_a_clock_adds_up_over_runs(tmp_path: Path) -> None:
    place = tmp_path / "one.seconds"
    place.write_text("[100.0, 50.0]")
    with vi_quality.Clock(place) as clock:
        pass
    wall, processor = json.loads(place.read_text())
    assert 100 < wall < 101
    assert 50 <= processor < 51
    assert clock.spent()[0] >= wall


def test_a_finished_seed_comes_from_the_cache_and_stands_in_the_table(tmp_path: Path) -> None:
    kept = dict.fromkeys(vi_quality.FIGURES, 1.25) | {"converged": True, "losses": []}
    none = torch.empty(0), torch.empty(0)
    recipe = vi_quality.RECIPES["mnist_mlp"]
    (tmp_path / f"mnist_mlp_{recipe.epochs}_{recipe.settling}_3.json").write_text(json.dumps(kept))
    found = vi_quality.row("mnist_mlp", 3, none, (none, none), recipe=recipe, cache=tmp_path)
    assert found == kept
    lines = vi_quality.table({3: found, 4: found | {"error %": 1.75, "converged": False}}).splitlines()
    assert len(lines) == 2 + len(vi_quality.FIGURES)
    assert lines[0].split() == ["seed", "3", "seed", "4", "mean", "sd"]
    assert lines[1].split() == ["error,", "%", "1.25", "1.75", "1.50", "0.35"]
    assert lines[-1].split() == ["converged", "yes", "no"]
