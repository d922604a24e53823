"""The learning rate of each step."""

from __future__ import annotations

import pytest

from wiu_pyro.infer.schedule import Schedule


def test_tail_is_full_and_then_falls_to_zero():
    rates = [Schedule("tail", 10, 10).rate(step) for step in range(101)]
    assert rates[:70] == [1.0] * 70
    assert rates[85] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(one >= other for one, other in zip(rates, rates[1:]))


def test_constant_is_full_throughout():
    schedule = Schedule("constant", 10, 10)
    assert [schedule.rate(step) for step in range(100)] == [1.0] * 100
    assert schedule.full_rate_epochs == 10


def test_cosine_falls_from_the_first_step_on_and_is_at_least_half_in_its_full_rate_epochs():
    schedule = Schedule("cosine", 11, 4)
    rates = [schedule.rate(step) for step in range(45)]
    assert rates[0] == 1.0
    assert rates[22] == pytest.approx(0.5)
    assert rates[44] == pytest.approx(0.0)
    assert all(one > other for one, other in zip(rates, rates[1:]))
    assert schedule.full_rate_epochs == 6


@pytest.mark.parametrize("kind", ["tail", "constant", "cosine"])
def test_travel_is_the_sum_of_the_steps_rates(kind):
    schedule = Schedule(kind, 20, 7)
    assert schedule.travel(0.01) == pytest.approx(0.01 * sum(schedule.rate(step) for step in range(140)), rel=1e-3)
