"""A prior around weights that are there already."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import wiu_pyro as wiu
from wiu_pyro.errors import ModelError, PriorError
from wiu_pyro.nn import BayesianNetwork, Centred, FanInNormal, Laplace, Normal, ScaleMixtureNormal, under_prior
from wiu_pyro.testing import small_classifier


@pytest.mark.parametrize("prior", [Normal(0.3), FanInNormal(), Laplace(0.2)])
def test_mean_is_the_networks_own_weight_and_the_spread_that_of_the_prior(prior):
    net = nn.Linear(4, 3)
    model = BayesianNetwork(net, Centred(prior))
    plain = BayesianNetwork(net, prior).prior_distributions()
    for name, found in model.prior_distributions().items():
        assert torch.equal(found.mean, dict(net.named_parameters())[name])
        torch.testing.assert_close(found.stddev, plain[name].stddev)


def test_file_says_that_the_prior_is_centred():
    model, data = small_classifier(num_data=30)
    fit = wiu.fit(model, wiu.guides.AutoMeanField(model), data, epochs=2)
    centred = under_prior(model, Centred(Normal(0.1)), weights=fit.point_estimate)
    again = wiu.fit(centred, wiu.guides.AutoMeanField(centred), data, epochs=2)
    attrs = wiu.to_inference_data(again, num_samples=2)["posterior"].attrs
    assert attrs["prior"] == "Normal(0, 0.1), centred at the network's own weights"
    for name, value in fit.point_estimate.items():
        assert torch.equal(centred.prior_distributions()[name].mean, value)


def test_kl_is_that_from_the_moved_prior():
    """At the start mean and prior mean agree: each weight adds (r² − 1)/2 − log r with r = s/s₀."""
    net = nn.Linear(4, 3)
    model = BayesianNetwork(net, Centred(Normal(0.3)), num_data=5)
    guide = wiu.guides.AutoMeanField(model, init_scale=0.1)
    guide.setup((torch.ones(5, 4), torch.zeros(5, dtype=torch.long)))
    expected = 15 * ((0.01 - 1) / 2 - torch.tensor(0.1).log())
    torch.testing.assert_close(guide.kl_divergence().detach(), expected)


def test_mixture_cannot_be_moved():
    with pytest.raises(PriorError, match="A prior that can be moved is needed"):
        BayesianNetwork(nn.Linear(4, 3), Centred(ScaleMixtureNormal())).prior_distributions()


def test_weights_of_another_network_are_refused():
    model = BayesianNetwork(nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"'weight' has shape \(3, 4\), but the weight given has \(4, 3\)"):
        under_prior(model, Normal(), weights={"weight": torch.ones(4, 3)})
    with pytest.raises(ModelError, match="'other' has shape none of that name"):
        under_prior(model, Normal(), weights={"other": torch.ones(2)})
