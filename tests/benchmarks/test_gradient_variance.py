"""The measured gradient variance is that of a plain loop, and every case of the table runs."""

import pytest
import torch

from tests.benchmarks.gradient_variance import CASES, gradient_variances
from wiu_pyro.guides import AutoMeanField
from wiu_pyro.testing import small_classifier


@pytest.mark.parametrize("case", CASES)
def test_variance_is_that_of_the_stacked_gradients(case):
    model, data = small_classifier()
    guide = AutoMeanField(model, **CASES[case])
    guide.setup(data)
    torch.manual_seed(0)
    found = gradient_variances(guide, iter([data] * 7), num_draws=7)
    torch.manual_seed(0)
    gradients = [
        torch.stack(torch.autograd.grad(guide.negative_elbo(*data), [guide.loc, guide.log_scale])) for _ in range(7)
    ]
    torch.testing.assert_close(found, torch.stack(gradients).double().var(0).sum(1))
