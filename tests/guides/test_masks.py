"""Labels that a mask leaves out, and data with weights: counted as the model says, or refused."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroSample
from torch import nn

from wiu_pyro.errors import LikelihoodError, ModelError
from wiu_pyro.guides import AutoDiagonalLaplace, AutoFullLaplace, AutoKFACLaplace, AutoMeanField

NOISE = 0.5


class Regression(PyroModule):
    """One linear unit; labels of data with a negative second input do not count."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.fc = PyroModule[nn.Linear](2, 1, bias=False)
        self.fc.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        mean, kept = self.fc(x)[:, 0], x[:, 1] > 0
        likelihood = dist.Normal(mean, NOISE)
        if self.how == "distribution":
            likelihood = likelihood.mask(kept)
        outer = poutine.mask(mask=kept) if self.how == "site" else poutine.scale(scale=1.0)
        if self.how == "weights":
            outer = poutine.scale(scale=torch.linspace(0.1, 2.0, len(x)))
        with pyro.plate("data", len(x)), outer:
            pyro.sample("obs", likelihood, obs=y)
        return mean


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 2, generator=generator), torch.randn(12, generator=generator)


@pytest.mark.parametrize("guide_class", [AutoDiagonalLaplace, AutoKFACLaplace, AutoFullLaplace])
@pytest.mark.parametrize("how", ["distribution", "site"])
def test_curvature_that_would_count_masked_labels_is_refused(how, guide_class):
    with pytest.raises(LikelihoodError, match="labels that all count, but the observed site has a mask. Leave"):
        guide_class(Regression(how)).laplace_approximation(*data())


@pytest.mark.parametrize("how", ["distribution", "site"])
def test_hessian_counts_the_labels_that_no_mask_leaves_out(how):
    x, y = data()
    posterior = AutoFullLaplace(Regression(how), curvature="hessian").laplace_approximation(x, y)
    kept = x[x[:, 1] > 0]
    expected = torch.linalg.inv(kept.mT @ kept / NOISE**2 + torch.eye(2)).diagonal()
    torch.testing.assert_close(posterior.get_posterior().variance, expected)


@pytest.mark.parametrize("how", ["distribution", "site"])
def test_likelihood_of_a_guide_is_that_of_the_labels_kept(how):
    x, y = data()
    guide = AutoMeanField(Regression(how))
    guide.setup((x, y))
    weight = torch.tensor([[0.3, -0.7]])
    kept = x[:, 1] > 0
    expected = torch.distributions.Normal(x @ weight[0], NOISE).log_prob(y)[kept].sum()
    torch.testing.assert_close(guide.log_likelihood({"fc.weight": weight}, (x, y)), expected)


def test_weights_of_single_data_are_refused():
    with pytest.raises(ModelError, match=r"poutine.scale gives them a scale of shape \(12,\). Give them one number"):
        AutoKFACLaplace(Regression("weights")).laplace_approximation(*data())
