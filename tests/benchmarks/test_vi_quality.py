"""The measure of VI's quality: its floor, its clock, its table, and that a finished seed is not run again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.benchmarks import vi_quality
from tests.benchmarks.cases import networks
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.nn import BayesianNetwork, NormalMixture


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


def test_a_finished_seeds_posterior_is_there_again_with_its_verdict(tmp_path: Path) -> None:
    train = torch.rand(4, 1, 28, 28), torch.arange(4)
    recipe = vi_quality.RECIPES["mnist_lenet"]
    place = tmp_path / f"mnist_lenet_{recipe.epochs}_{recipe.settling}_3.json"
    net, _ = networks("mnist_lenet")
    guide = AutoMeanField(BayesianNetwork(net, prior=vi_quality.PRIOR, num_data=4), scale_indicators=True)
    guide(*train)
    torch.save(guide.state_dict(), place.with_suffix(".pt"))
    for losses, settled in (([1.0] * 16 + [0.985] * 4, True), ([1.0] * 18 + [0.985] * 2, False)):
        place.write_text(json.dumps({"losses": [guide.loss_offset() + value for value in losses]}))
        fit = vi_quality.again("mnist_lenet", 3, train, recipe=recipe, cache=tmp_path)
        torch.testing.assert_close(fit.guide.loc, guide.loc)
        torch.testing.assert_close(fit.point_estimate["conv1.weight"], net.conv1.weight.detach())
        assert fit.convergence.converged is settled


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
