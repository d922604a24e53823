"""Metrics of a weight's posterior against closed forms, loops and torch's own divergence."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wiu_pyro.errors import DataError
from wiu_pyro.metrics import contraction, effective_parameters, kl_normal, layer_figures, signal_to_noise

SCALE = st.floats(0.01, 100)


def test_kl_equals_torch_divergence_of_two_normals():
    rng = np.random.default_rng(0)
    mean, sd, prior_mean, prior_sd = rng.normal(size=50), rng.uniform(0.1, 3, 50), rng.normal(size=50), 0.7
    q = torch.distributions.Normal(torch.tensor(mean), torch.tensor(sd))
    p = torch.distributions.Normal(torch.tensor(prior_mean), torch.tensor(prior_sd, dtype=torch.float64))
    expected = torch.distributions.kl_divergence(q, p).numpy()
    np.testing.assert_allclose(kl_normal(mean, sd, prior_mean=prior_mean, prior_sd=prior_sd), expected, rtol=1e-12)


def test_kl_of_the_prior_from_itself_is_zero_and_of_a_point_infinite():
    assert kl_normal(0.3, 2.0, prior_mean=0.3, prior_sd=2.0) == 0
    assert kl_normal(0.3, 0.0, prior_sd=2.0) == np.inf


@given(mean=arrays(np.float64, 5, elements=st.floats(-10, 10)), sd=arrays(np.float64, 5, elements=SCALE), factor=SCALE)
def test_rescaling_weights_together_with_the_prior_changes_no_metric(mean, sd, factor):
    prior_sd = 1.7
    before = contraction(sd, prior_sd), signal_to_noise(mean, sd), kl_normal(mean, sd, prior_sd=prior_sd)
    mean, sd, prior_sd = mean * factor, sd * factor, prior_sd * factor
    after = contraction(sd, prior_sd), signal_to_noise(mean, sd), kl_normal(mean, sd, prior_sd=prior_sd)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9)


@given(sd=arrays(np.float64, 6, elements=SCALE), mean=arrays(np.float64, 6, elements=st.floats(-5, 5)))
def test_kl_is_never_negative(sd, mean):
    assert (kl_normal(mean, sd, prior_sd=1.0) >= 0).all()


def test_effective_parameters_equal_the_hat_matrix_trace_of_ridge_regression():
    rng = np.random.default_rng(1)
    x, prior_sd = rng.normal(size=(30, 5)), 0.5
    covariance = np.linalg.inv(x.T @ x + np.eye(5) / prior_sd**2)
    hat = x @ covariance @ x.T  # what ridge regression multiplies the targets with, at unit noise
    assert effective_parameters(np.sqrt(np.diag(covariance)), prior_sd) == pytest.approx(np.trace(hat))


def test_contraction_is_negative_where_the_posterior_is_wider_than_the_prior():
    np.testing.assert_allclose(contraction([2.0, 1.0], [1.0, 1.0]), [-3.0, 0.0])


def test_signal_to_noise_of_a_point_is_infinite_and_undefined_at_zero():
    np.testing.assert_array_equal(signal_to_noise([1.0, 0.0, -3.0], [0.0, 0.0, 1.5]), [np.inf, np.nan, 2.0])


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_an_sd_that_is_none_is_refused(bad):
    with pytest.raises(DataError, match=r"sd must be a standard deviation.*1 of 2 are not"):
        contraction([1.0, bad], 1.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_prior_sd_that_is_not_positive_is_refused(bad):
    with pytest.raises(DataError, match="prior_sd must be finite and > 0"):
        kl_normal([0.0], [1.0], prior_sd=bad)


def test_layer_figures_against_an_improper_prior_have_what_needs_no_prior():
    mean, sd = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.5, 0.0])
    found = layer_figures(mean, sd, prior_sd=np.array([np.nan, np.nan, 1.0]), sd_conditional=sd)
    assert (found["snr_q50"], found["sd_q50"], found["num_uncertain"]) == (2.0, 0.5, 2)
    for name in ("sd_to_prior", "contraction", "effective", "conditional_sd_to_prior", "conditional_contraction"):
        assert np.isnan(found[name])
