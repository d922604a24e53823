"""The toy problems' own answers, tied together by identities they were not computed from."""

from __future__ import annotations

import math

import pytest
import torch

from wiu_pyro.testing import linear_gaussian, small_classifier


@pytest.mark.parametrize("outputs", [1, 3])
def test_evidence_is_expected_log_likelihood_minus_kl(outputs):
    """log p(y) = E_q log p(y | w) − KL(q ‖ p), with equality for the exact posterior q alone."""
    problem = linear_gaussian(out_features=outputs)
    x, y = problem.data
    num_inputs = x.shape[1]
    residual = y - x @ problem.mean["weight"].mT - problem.mean["bias"]
    expected = torch.zeros((), dtype=torch.float64)
    for output in range(outputs):
        places = [*range(output * num_inputs, (output + 1) * num_inputs), outputs * num_inputs + output]
        block = problem.covariance[places][:, places]
        inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        spread = ((inputs @ block) * inputs).sum(1)
        expected += -0.5 * ((residual[:, output].square() + spread) / 0.25).sum()
        expected -= len(x) * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    assert problem.log_evidence == pytest.approx(expected.item() - problem.kl, rel=1e-9)


def test_posterior_mean_is_where_the_log_joint_has_no_slope():
    problem = linear_gaussian()
    x, y = problem.data
    weight, bias = (problem.mean[name].clone().requires_grad_() for name in ("weight", "bias"))
    residual = y - x @ weight.mT - bias
    loss = residual.square().sum() / 0.5 + weight.square().sum() / (2 * 0.49) + bias.square().sum() / (2 * 2.25)
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_and_data_have_the_dtype_asked_for(dtype):
    problem = linear_gaussian(dtype=dtype)
    assert {value.dtype for value in problem.model.net.buffers()} == {dtype}
    assert {value.dtype for value in problem.data} == {dtype}
    assert problem.covariance.dtype == torch.float64


def test_same_seed_gives_the_same_toy():
    one, other = small_classifier(seed=3), small_classifier(seed=3)
    assert torch.equal(one[1][0], other[1][0])
    assert torch.equal(one[0].net[0].weight, other[0].net[0].weight)
