import torch
from torch import nn

from wiu_pyro.nn import BayesianNetwork, FanInNormal, Normal, under_prior


def test_network_and_likelihood_are_the_same_under_another_prior():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    model = BayesianNetwork(net, {"1.*": None, "*": FanInNormal()}, likelihood="normal", noise_scale=0.3, num_data=9)
    other = under_prior(model, Normal(0.5))
    x = torch.randn(3, 4)
    model.eval()
    other.eval()
    torch.testing.assert_close(other.net(x), model.net(x))
    assert (other.likelihood, other.noise_scale, other.num_data) == ("normal", 0.3, 9)
    assert set(other.site_priors) == set(model.site_priors)
    assert all(bool((prior.stddev == 0.5).all()) for prior in other.prior_distributions().values())
    assert float(model.prior_distributions()["0.weight"].stddev[0, 0]) != 0.5
