"""Every timed case runs, small; its time is for ``make bench``, never for a test."""

import warnings

import pytest

from tests.benchmarks.cases import NETWORKS, curvature_cases, step_cases
from tests.benchmarks.predictive_cases import PredictiveCase, per_image_ratios, predictive_cases
from tests.benchmarks.timing import ratios


@pytest.mark.training
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_case_runs(name):
    for run in step_cases(name).values():
        run()


@pytest.mark.training
@pytest.mark.parametrize("name", NETWORKS)
def test_every_curvature_case_runs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        for run in curvature_cases(name, num_images=6).values():
            run()


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
