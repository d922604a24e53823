"""Every timed case runs, small; its time is for ``make bench``, never for a test."""

import warnings

import pytest
import torch

from tests.benchmarks.__main__ import _print_bar
from tests.benchmarks.bars import Bar
from tests.benchmarks.cases import NETWORKS, STEP_BARS, step_cases
from tests.benchmarks.curvature_cases import BARS, Images, curvature_cases, images, sampling_cases, train
from tests.benchmarks.predictive_cases import PredictiveCase, per_image_ratios, predictive_cases
from tests.benchmarks.timing import ratios, times
from wiu_pyro.datasets import load
from wiu_pyro.errors import DataError


@pytest.mark.training
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_case_runs(name):
    cases = step_cases(name)
    for run in cases.values():
        run()
    assert all(bar.case in cases for bar in STEP_BARS)


@pytest.fixture
def few() -> Images:
    generator = torch.Generator().manual_seed(0)
    return Images(torch.rand(6, 1, 28, 28, generator=generator), torch.arange(6), "noise")


@pytest.mark.training
@pytest.mark.parametrize("name", NETWORKS)
def test_every_curvature_case_runs_and_every_bar_has_its_cases(name, few):
    cases = curvature_cases(name, few, train(name, few, epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        spent = times(cases, rounds=1, warmup=0)
    for bar in BARS:
        assert bar.case in spent
        assert any(case.startswith(bar.against) for case in cases)


@pytest.mark.training
def test_every_sampling_case_runs(few):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        for run in sampling_cases("mnist_lenet", few, train("mnist_lenet", few, epochs=1)).values():
            run()


@pytest.mark.parametrize(("ours", "words"), [(1.0, "0.50 (0.50 to 0.50), at most 0.5: reached"), (3.0, "NOT reached")])
def test_bar_is_held_against_the_fastest_peer(ours, words, capsys):
    spent = {"ours": [ours, ours], "peer slow": [9.0, 9.0], "peer fast": [2.0, 2.0]}
    _print_bar(Bar("ours", ("peer",), {"net": 0.5}), spent, "net")
    assert words in capsys.readouterr().out


def test_images_are_real_ones_whether_mnist_is_there_or_not(monkeypatch):
    def absent(name, **options):
        if name == "mnist":
            raise DataError("no file")
        return load(name, **options)

    monkeypatch.setattr("tests.benchmarks.curvature_cases.load", absent)
    found = images()
    assert found.x.shape[1:] == (1, 28, 28)
    assert len(found.x) >= 10_000
    assert "digits" in found.name


@pytest.mark.training
@pytest.mark.parametrize("name", NETWORKS)
def test_every_predictive_case_runs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        for case in predictive_cases(name, num_images=4, num_peer=2).values():
            case.run()


def test_predictives_are_compared_by_their_time_per_image(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 3.0])
    monkeypatch.setattr("tests.benchmarks.timing.time.perf_counter", lambda: next(clock))
    cases = {"wiu_pyro, probit": PredictiveCase(int, 100), "peer": PredictiveCase(int, 5)}
    assert per_image_ratios(cases, rounds=1) == {"peer": pytest.approx((2 / 100) / (1 / 5))}


def test_ratio_is_taken_within_a_round():
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 9.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.benchmarks.timing.time.perf_counter", lambda: next(clock))
        found = ratios({"base": int, "other": int}, base="base", rounds=2, warmup=0)
    assert found == {"base": 1.0, "other": 2.0}
