"""Which weights each dropout of a network masks, against masks on its inputs; and networks where there are none."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wiu_pyro.guides.dropout_trail import find_dropouts
from wiu_pyro.nn import BayesianNetwork, Normal


def found(net, x):
    model = BayesianNetwork(net)
    weights = {name: model.net.get_buffer(name).detach().clone() for name in model.site_priors}
    return find_dropouts(model, weights, (x,))


class Net(nn.Module):
    """Modules and a forward pass of one's own."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.own = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.own(self, x)


IMAGES = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("net", "x", "site"),
    [
        (nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)), VECTORS, "3.weight"),
        (nn.Sequential(nn.Dropout(0.3), nn.ReLU(), nn.LeakyReLU(0.2), nn.Linear(8, 2)), VECTORS, "3.weight"),
        (nn.Sequential(nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 2)), IMAGES, "2.weight"),
        (nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(4, 5, 3), nn.Flatten()), IMAGES, "1.weight"),
        (nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten()), IMAGES, "1.weight"),
        (nn.Sequential(nn.Dropout2d(0.3), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Flatten()), IMAGES, "1.weight"),
        (
            nn.Sequential(
                nn.Dropout2d(0.3), nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(3, padding=1), nn.Flatten()
            ).append(nn.Linear(4, 2)),
            IMAGES,
            "5.weight",
        ),
        (nn.Sequential(nn.Dropout1d(0.3), nn.Conv1d(4, 5, 3), nn.Flatten()), IMAGES[..., 0], "1.weight"),
        (
            Net(lambda net, x: net.fc(net.drop(x).mean((2, 3)) / 2), fc=nn.Linear(4, 2), drop=nn.Dropout2d(0.3)),
            IMAGES,
            "fc.weight",
        ),
        (Net(lambda net, x: net.fc(F.dropout(x, 0.3, net.training).relu()), fc=nn.Linear(8, 2)), VECTORS, "fc.weight"),
    ],
)
def test_masked_weights_give_the_output_of_masked_inputs(net, x, site):
    (dropout,) = found(net, x)
    assert dropout.problem == ""
    assert dropout.probability == 0.3
    assert list(dropout.columns) == [site]
    mask = (torch.rand(dropout.size, generator=torch.Generator().manual_seed(2)) < 0.7) / 0.7
    with torch.no_grad():
        net.eval()
        weight = net.get_parameter(site)
        kept = weight.clone()
        weight.mul_(mask[dropout.columns[site]])
        by_weights = net(x)
        weight.copy_(kept)
        by_inputs = _with_mask(net, x, mask)
    torch.testing.assert_close(by_weights, by_inputs)


def _with_mask(net, x, mask):
    """The network's output with its dropout's output multiplied by one mask for all data."""
    original = F.dropout

    def masked(layer_input):
        whole = mask.numel() == layer_input[0].numel()
        shape = layer_input.shape[1:] if whole else (mask.numel(), *[1] * (layer_input.dim() - 2))
        return layer_input * mask.view(shape)

    modules = [module for module in net.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    handles = [module.register_forward_hook(lambda _, __, output: masked(output)) for module in modules]
    if not modules:
        F.dropout = lambda layer_input, *_: masked(layer_input)
    try:
        return net(x)
    finally:
        F.dropout = original
        for handle in handles:
            handle.remove()


def test_two_calls_of_one_module_are_two_masks():
    net = Net(
        lambda net, x: net.b(net.drop(net.a(net.drop(x)).relu())),
        a=nn.Linear(8, 6),
        b=nn.Linear(6, 2),
        drop=nn.Dropout(0.4),
    )
    dropouts = found(net, VECTORS)
    assert [(one.name, one.size, list(one.columns)) for one in dropouts] == [
        ("drop", 8, ["a.weight"]),
        ("drop", 6, ["b.weight"]),
    ]


def test_channels_then_entries_mask_one_layer_twice():
    net = nn.Sequential(nn.Dropout2d(0.2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2))
    first, second = found(net, IMAGES)
    assert (first.size, second.size) == (4, 144)
    assert first.columns["3.weight"].tolist() == [[entry // 36 for entry in range(144)]]
    assert second.columns["3.weight"].tolist() == [list(range(144))]


def test_one_mask_over_two_layers_is_shared():
    net = Net(
        lambda net, x: torch.cat([net.a(x), net.b(x)], -1),
        a=nn.Linear(8, 1),
        b=nn.Linear(8, 1),
    )
    (dropout,) = found(nn.Sequential(nn.Dropout(0.4), net), VECTORS)
    assert list(dropout.columns) == ["1.a.weight", "1.b.weight"]


def test_what_goes_round_the_dropout_is_not_masked():
    net = Net(lambda net, x: net.b(net.drop(x)) + net.a(x), a=nn.Linear(8, 2), b=nn.Linear(8, 2), drop=nn.Dropout(0.4))
    (dropout,) = found(net, VECTORS)
    assert list(dropout.columns) == ["b.weight"]
    assert dropout.problem == ""


def test_dropout_without_effect_is_none():
    assert found(nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 2)), VECTORS) == []


@pytest.mark.parametrize(
    ("net", "x", "problem"),
    [
        (
            nn.Sequential(nn.Dropout(0.3), nn.Conv2d(4, 5, 3), nn.Flatten()),
            IMAGES,
            "mask of its own at each position of '1.weight'",
        ),
        (
            nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 2), nn.Flatten()),
            IMAGES,
            "mask of its own at each position of '1.weight'",
        ),
        (
            nn.Sequential(nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 2)),
            VECTORS,
            "goes into 'tanh' before any layer's weights",
        ),
        (
            nn.Sequential(nn.Dropout(0.3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)),
            IMAGES,
            "goes into 'max_pool2d'",
        ),
        (
            nn.Sequential(nn.Dropout2d(0.3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 6), nn.Flatten()),
            IMAGES,
            "goes into 'batch_norm'",
        ),
        (nn.Sequential(nn.Linear(8, 2), nn.Dropout(0.3)), VECTORS, "goes into 'logsumexp'"),
        (
            Net(lambda net, x: net.fc(x + net.drop(x)), fc=nn.Linear(8, 2), drop=nn.Dropout(0.3)),
            VECTORS,
            "goes into 'add'",
        ),
        (Net(lambda net, x: net.fc(F.dropout(x, 0.3)), fc=nn.Linear(8, 2)), VECTORS, "stays on in evaluation mode"),
        (nn.Sequential(nn.AlphaDropout(0.3), nn.Linear(8, 2)), VECTORS, "is alpha_dropout, whose noise is no mask"),
        (nn.Sequential(nn.Dropout(1.0), nn.Linear(8, 2)), VECTORS, r"drops everything \(p = 1\)"),
        (
            Net(lambda net, x: net.fc(net.fc(net.drop(x))), fc=nn.Linear(8, 8), drop=nn.Dropout(0.3)),
            VECTORS,
            "used 2 times in a pass",
        ),
        (
            Net(lambda net, x: net.fc(x), fc=nn.Linear(8, 8), drop=nn.Dropout(0.3)),
            VECTORS,
            "is not called in evaluation mode",
        ),
        (
            Net(
                lambda net, x: net.fc(net.rnn(x[:, None])[0][:, 0]),
                fc=nn.Linear(8, 2),
                rnn=nn.GRU(8, 8, 2, dropout=0.3, batch_first=True),
            ),
            VECTORS,
            "acts inside GRU",
        ),
    ],
)
def test_dropout_that_masks_no_weights_says_why(net, x, problem):
    (dropout,) = found(net, x)
    assert re.search(problem, dropout.problem)


def test_weight_without_a_prior_cannot_be_masked():
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 2))
    model = BayesianNetwork(net, {"0.*": Normal(1.0), "2.*": None})
    (dropout,) = find_dropouts(model, {name: model.net.get_buffer(name) for name in model.site_priors}, (VECTORS,))
    assert dropout.problem == "feeds a linear whose weight has no prior"
