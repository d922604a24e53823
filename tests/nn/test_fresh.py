"""Fresh weights: as new as ``reset_parameters`` makes them, of every kind of module, without touching the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wiu_pyro.errors import ModelError
from wiu_pyro.nn import BayesianNetwork, FanInNormal, fresh_weights


def fresh(net, seed=1, **options):
    model = BayesianNetwork(net)
    torch.manual_seed(seed)
    return model, fresh_weights(model, list(model.site_priors), **options)


def test_fresh_weights_are_those_of_a_new_network_of_the_same_seed():
    torch.manual_seed(0)
    model, found = fresh(nn.Linear(3, 2))
    torch.manual_seed(1)
    expected = nn.Linear(3, 2)
    assert torch.equal(found["weight"], expected.weight.detach())
    assert torch.equal(found["bias"], expected.bias.detach())


def test_the_network_itself_stays_as_it_is():
    model, found = fresh(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    fresh_weights(model, list(model.site_priors))
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())
    assert not torch.equal(found["0.weight"], before["0.weight"])


def test_running_statistics_start_anew():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net(torch.randn(8, 3) + 5)
    _, found = fresh(net)
    assert torch.equal(found["1.running_mean"], torch.zeros(2))
    assert int(found["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize(
    "net",
    [nn.LSTM(3, 2), nn.MultiheadAttention(4, 2), nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(1, 2, 3), nn.Embedding(5, 2)],
)
def test_modules_of_torch_are_drawn_anew(net):
    prior = {"*bias*": None, "*": FanInNormal()}
    model = BayesianNetwork(net, prior=prior) if any("bias" in name for name, _ in net.named_parameters()) else None
    model = model or BayesianNetwork(net)
    found = fresh_weights(model, list(model.site_priors))
    held = {**dict(model.net.named_parameters()), **dict(model.net.named_buffers())}
    assert set(found) == set(held)
    for name in model.site_priors:
        assert found[name].shape == held[name].shape
        assert not torch.equal(found[name], held[name]), name


class Scaled(nn.Module):
    """A network with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(3, 2), nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.linear(x)


class OwnScheme(Scaled):
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.scale)


def test_a_parents_own_scheme_has_the_last_word():
    _, found = fresh(OwnScheme())
    assert torch.equal(found["linear.weight"], torch.zeros(2, 3))
    assert torch.equal(found["scale"], torch.ones(1))


def test_an_init_of_ones_own_stands_in_for_reset_parameters():
    _, found = fresh(Scaled(), init=lambda copy: nn.init.constant_(copy.scale, 7.0))
    assert float(found["scale"]) == 7


def test_a_module_that_cannot_be_drawn_anew_is_named():
    with pytest.raises(ModelError, match=r"'scale', but its module \(Scaled\) has no reset_parameters\(\)\. Give"):
        fresh(Scaled())
