"""From where on a curve has settled, and where early stopping stops: against plain loops and curves of known ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wiu_pyro.errors import DataError
from wiu_pyro.metrics import Stop, distance_from_end, early_stop, noisy_copies, settled_from


def plain(curve, tolerance, floor=0.0):
    """The rule, record by record."""
    num = len(curve)
    window = max(1, num // 10)
    half = window // 2
    end = np.mean(curve[-window:])
    band = max(tolerance * abs(end), floor)
    smooth = [np.mean(curve[max(0, place - half) : place + half + 1]) for place in range(num)]
    for place in range(num):
        if all(abs(value - end) <= band for value in smooth[place:]):
            return place if num - place >= max(2, 0.2 * num) else math.inf
    return math.inf


@pytest.mark.parametrize("num", [10, 15, 37, 100])
def test_the_place_is_that_of_a_plain_loop(num):
    rng = np.random.default_rng(num)
    for time in (1, num / 10, num / 4, num):
        curve = 2 + 3 * np.exp(-np.arange(num) / time) + 0.02 * rng.normal(size=num)
        assert settled_from(curve, tolerance=0.03) == plain(curve, 0.03)


def test_many_curves_at_once_are_each_judged_alone():
    rng = np.random.default_rng(0)
    curves = 1 + np.exp(-np.arange(60) / np.array([2.0, 10.0, 60.0])[:, None]) + 0.01 * rng.normal(size=(2, 3, 60))
    found = settled_from(curves, tolerance=0.05)
    assert found.tolist() == [[plain(curve, 0.05) for curve in row] for row in curves]


def test_a_steady_movement_never_settles():
    assert settled_from(np.linspace(1, 2, 100), tolerance=0.05) == math.inf


def test_a_constant_has_settled_from_the_start_whatever_its_size():
    for size in (0.0, 1e-9, 5.0):
        assert settled_from(np.full(20, size), tolerance=0.01) == 0


def test_what_is_next_to_nothing_is_taken_in_absolute_terms():
    curve = 1e-4 * (2 + np.sin(np.arange(50)))
    assert settled_from(curve, tolerance=0.02) == math.inf
    assert settled_from(curve, tolerance=0.02, floor=0.01) == 0


def test_a_curve_with_a_gap_has_no_place():
    assert math.isnan(settled_from([math.nan] + 19 * [1.0], tolerance=0.1))


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_noise_up_to_half_the_tolerance_lets_a_settled_curve_be_one(noise):
    """The stated rate: fewer than 1 in 100 curves of 70 records are missed at a tolerance of 0.02."""
    curves = 1 + noise * np.random.default_rng(1).normal(size=(2_000, 70))
    missed = np.mean(np.isinf(settled_from(curves, tolerance=0.02)))
    assert missed <= 0.01


def test_distances_are_in_tolerances_from_the_mean_of_the_last_tenth():
    found = distance_from_end([1.5] * 5 + [1.0] * 15, tolerance=0.1)
    half = 1 / 3  # of the window of three, around the step
    expected = [5.0] * 4 + [5 * (1 - half), 5 * half] + [0.0] * 14
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_copies_have_the_curves_noise_and_its_course():
    rng = np.random.default_rng(2)
    course = 1 + np.exp(-np.arange(200) / 40)
    copies = noisy_copies(course + 0.05 * rng.normal(size=200), 2_000, rng=rng)
    assert copies.shape == (2_000, 200)
    spread = np.sqrt(copies.var(axis=0).mean())
    assert spread == pytest.approx(0.05, rel=4 * math.sqrt(2 / (2 * 198)))  # of 198 dependent squares
    np.testing.assert_allclose(copies.mean(axis=0)[20:180], course[20:180], atol=5 * 0.05 / math.sqrt(20))


def test_a_smooth_course_has_next_to_no_noise():
    copies = noisy_copies(1 + np.exp(-np.arange(100) / 20), 10, rng=np.random.default_rng(0))
    assert np.ptp(copies, axis=0).max() < 3e-3


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3, 2, 1, 1, 1, 1], 3, Stop(5.0, 2.0)),
        ([3, 2, 1, 1, 1], 3, Stop(math.nan, math.nan)),
        ([1, 2], 1, Stop(1.0, 0.0)),
        ([5, 4, 6, 3, 6, 6, 2], 2, Stop(5.0, 3.0)),
    ],
)
def test_early_stopping_stops_after_patience_epochs_without_a_new_best(losses, patience, expected):
    found = early_stop(losses, patience=patience)
    assert (found.stopped, found.best) == pytest.approx((expected.stopped, expected.best), nan_ok=True)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda: settled_from(np.ones(9), tolerance=0.1), "at least 10 records on the last axis are needed, got shape"),
        (lambda: settled_from(np.ones(10), tolerance=0.0), "A tolerance above 0 is needed, got 0"),
        (lambda: early_stop([1.0], patience=0), "a patience of at least 1 are needed, got shape .* and 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(question, message):
    with pytest.raises(DataError, match=message):
        question()
