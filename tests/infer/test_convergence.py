"""When a fit counts as converged."""

from __future__ import annotations

import math

import pytest
from pyro.infer.autoguide import AutoDelta, AutoNormal

import wiu_pyro as wiu
from wiu_pyro import guides
from wiu_pyro.infer import assess
from wiu_pyro.testing import small_classifier

FLAT, FALLING = [100.0] * 20, [100.0 * 0.9**epoch for epoch in range(20)]


def test_flat_losses_have_converged():
    found = assess(FLAT)
    assert found.converged is True
    assert (found.change, found.threshold) == (0.0, 0.01)


def test_falling_losses_have_not_converged_and_the_change_is_that_of_the_tenths():
    found = assess(FALLING)
    assert found.converged is False
    first, last = sum(FALLING[16:18]), sum(FALLING[18:20])
    assert found.change == pytest.approx((first - last) / last)
    assert "23.46 %" in found.detail
    assert "not below 1 %" in found.detail


def test_falling_learning_rate_alone_does_not_make_a_fit_converged():
    """Losses that fall until the rate does, and are flat after it."""
    found = assess(FALLING[:14] + [FALLING[13]] * 6, full_rate_epochs=14)
    assert found.converged is False
    assert "the epochs at the full learning rate" in found.detail


def test_noise_of_single_epochs_does_not_hide_convergence():
    losses = [100.0 + (1.5 if epoch % 2 else -1.5) for epoch in range(40)]
    assert assess(losses).converged is True


@pytest.mark.parametrize("epochs", [0, 1, 9])
def test_too_few_epochs_are_not_assessed(epochs):
    found = assess([1.0] * epochs)
    assert found.converged is None
    assert math.isnan(found.change)
    assert "not assessed" in found.detail


def test_loss_that_is_not_finite_has_not_converged():
    assert assess([*FLAT, math.nan]).converged is False


def test_change_of_a_density_is_relative_to_at_least_a_nat_per_datum():
    losses = [0.02 * 0.5**epoch for epoch in range(20)]
    assert assess(losses).converged is False
    assert assess(losses, least=100.0).converged is True


def test_fit_too_short_to_leave_its_start_has_not_converged_however_flat_its_losses():
    found = assess(FLAT, reach=0.02, travel=2.3)
    assert found.converged is False
    assert "too few steps" in found.detail
    assert assess(FLAT, reach=3.0, travel=2.3).converged is True


@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (lambda model: guides.AutoMeanField(model, init_scale=1.0), "−ELBO"),
        (AutoNormal, "−ELBO"),
        (guides.AutoPointEstimate, "−log joint density"),
        (guides.AutoDiagonalLaplace, "−log joint density"),
        (AutoDelta, "−log joint density"),
    ],
)
def test_sentence_names_what_the_guide_was_trained_by(make, objective):
    model, data = small_classifier()
    found = wiu.fit(model, make(model), data, epochs=10, learning_rate=1e-4, schedule="constant").convergence
    assert found.detail.startswith(f"{objective} changed by ")


def test_change_of_many_times_the_loss_is_said_in_words():
    found = assess([1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1.0])
    assert found.converged is False
    assert "changed by more than ten times its size over the last tenth of all epochs (not below 1 %)" in found.detail
