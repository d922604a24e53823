"""Laplace guides that share one point estimate share its training record."""

import pytest

import wiu_pyro as wiu
from wiu_pyro.guides import AutoDiagonalLaplace, AutoKFACLaplace, AutoMeanField
from wiu_pyro.testing import small_classifier


@pytest.fixture(scope="module")
def trained():
    model, data = small_classifier()
    return model, data, wiu.fit(model, AutoKFACLaplace(model), data, epochs=12, learning_rate=1e-2)


def test_a_laplace_guide_at_anothers_point_estimate_has_its_losses_and_verdict(trained):
    model, data, first = trained
    second = wiu.fit(model, AutoDiagonalLaplace(model), data, epochs=0, start=first)
    assert second.losses.tolist() == first.losses.tolist()
    assert second.convergence == first.convergence
    assert isinstance(first.convergence.converged, bool)


def test_a_laplace_guide_at_the_mean_of_a_variational_fit_is_not_assessed(trained):
    model, data, first = trained
    variational = wiu.fit(model, AutoMeanField(model), data, epochs=12, start=first)
    at_mean = wiu.fit(model, AutoDiagonalLaplace(model), data, epochs=0, start=variational)
    assert at_mean.convergence.converged is None
    assert at_mean.losses.size == 0


def test_another_temperature_is_another_mode_and_not_assessed(trained):
    model, data, first = trained
    cold = wiu.fit(model, AutoDiagonalLaplace(model, temperature=0.1), data, epochs=0, start=first)
    assert cold.convergence.converged is None
