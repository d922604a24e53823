"""Which weights go: exactly the share asked for, the lowest first, over all layers or in each."""

import pytest
import torch

from tests.interventions.planted_networks import two_layers
from wiu_pyro.errors import CurvatureError
from wiu_pyro.export.sources import read_source
from wiu_pyro.interventions.candidates import read_candidates
from wiu_pyro.interventions.ranking import Removal


@pytest.fixture(scope="module")
def weights():
    fit, _ = two_layers(epochs=1)
    source = read_source(fit, model=None, data=None, num_samples=2, seed=0)
    return read_candidates(source, source.chains[0])


def order(weights, score, seed=0):
    return Removal.by(weights, score, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.987])
def test_the_lowest_of_all_go_and_exactly_so_many(weights, share):
    score = torch.rand(len(weights.mean), generator=torch.Generator().manual_seed(3))
    keep = order(weights, score).keep(share)
    gone = round(share * len(score))
    assert int((~keep).sum()) == gone
    assert score[~keep].max() < score[keep].min()


def test_each_layer_loses_the_same_share(weights):
    score = weights.mean.abs()
    keep = order(weights, score).keep(0.5, ranking="uniform")
    for layer in weights.layer_names:
        inside = weights.of_layer(layer)
        assert int((~keep & inside).sum()) == round(0.5 * int(inside.sum()))
        assert score[~keep & inside].max() <= score[keep & inside].min()


def test_one_layer_alone_leaves_the_others_whole(weights):
    keep = order(weights, weights.mean.abs()).keep(0.9, layer="2")
    assert keep[~weights.of_layer("2")].all()
    assert int((~keep).sum()) == round(0.9 * 24)


def test_equal_scores_go_by_chance(weights):
    first, second = (order(weights, torch.zeros(len(weights.mean)), seed).keep(0.5) for seed in (0, 1))
    assert not torch.equal(first, second)
    kept = first.double().mean()
    assert abs(float(first[: len(first) // 2].double().mean() - kept)) < 0.25  # not the first ones


def test_more_removed_keeps_a_part_of_what_less_removed_keeps(weights):
    removal = order(weights, weights.mean.abs())
    assert (removal.keep(0.9) <= removal.keep(0.5)).all()


def test_scores_that_are_no_numbers_are_refused(weights):
    with pytest.raises(CurvatureError, match="NaN"):
        order(weights, torch.full((len(weights.mean),), torch.nan))
