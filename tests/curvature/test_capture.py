"""What a pass refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.curvature.networks import build, captured, rules_of
from wiu_pyro.curvature import (
    CategoricalOutput,
    CurvaturePass,
    FullLayerCurvature,
    HessianColumns,
    KroneckerFactors,
    Portions,
    refuse_training_mode,
)
from wiu_pyro.curvature.layer_record import capture_layers
from wiu_pyro.errors import CurvatureError, DataError, ModelError

X = torch.ones(2, 3)


def run(net: nn.Module, layers: dict[str, nn.Module], x: torch.Tensor = X) -> None:
    passed = CurvaturePass(lambda batch: CategoricalOutput(net(batch[0])), layers)
    list(passed.run([(X,), (x,)], lambda likelihood, batch: likelihood.sqrt_hessian()))


def test_layer_called_twice_is_refused():
    layer = nn.Linear(3, 3)
    with pytest.raises(ModelError, match=r"'fc' was called twice \(shared weights\)"):
        run(nn.Sequential(layer, nn.ReLU(), layer), {"fc": layer})


def test_layer_that_is_not_called_is_refused():
    with pytest.raises(CurvatureError, match="no data came through layer 'idle'"):
        run(nn.Linear(3, 3), {"idle": nn.Linear(3, 3)})


class DeadEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.idle(x)
        return self.fc(x)


def test_layer_whose_output_is_thrown_away_is_refused():
    net = DeadEnd()
    with pytest.raises(CurvatureError, match="no data came through layer 'idle'"):
        run(net, {"fc": net.fc, "idle": net.idle})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_not_finite_is_refused_with_its_batch(value):
    net = nn.Linear(3, 3)
    with pytest.raises(DataError, match="batch 1 gave NaN or infinity"):
        run(net, {"fc": net}, torch.full((2, 3), value))


def test_hooks_are_gone_after_the_pass_even_where_it_broke():
    net = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), capture_layers({"fc": net}):
        net(torch.ones(2, 5))
    assert not net._forward_hooks


@pytest.mark.parametrize("module", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.BatchNorm1d(3), nn.BatchNorm2d(3)])
def test_network_in_training_mode_is_refused(module):
    net = nn.Sequential(nn.Linear(3, 3), module)
    with pytest.raises(CurvatureError, match=rf"'1' \({type(module).__name__}\) is in training mode.*model\.eval\(\)"):
        refuse_training_mode(net)
    refuse_training_mode(net.eval())


def test_batch_norm_without_running_statistics_is_refused_in_evaluation_too():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(CurvatureError, match=r"'1' \(BatchNorm1d\) normalises by the batch"):
        refuse_training_mode(net)


PORTIONS = {
    "a column at a time": Portions(10**9, 1, by_data=False),
    "a datum at a time": Portions(1, 10**9, alone=False),
    "columns of a few data": Portions(1, 1),
}


@pytest.mark.parametrize("kind", [KroneckerFactors, FullLayerCurvature])
@pytest.mark.parametrize("portions", PORTIONS)
@pytest.mark.parametrize("name", ["mlp", "conv", "sequence"])
def test_sums_of_portions_are_those_of_the_whole_batch(name, portions, kind, monkeypatch):
    monkeypatch.setattr("wiu_pyro.curvature.backward.FEWEST_ROWS", 1)
    monkeypatch.setattr("wiu_pyro.curvature.backward.FIRST_ROWS", 1)
    net, x = build(name)
    rules = {layer: rule for layer, rule in rules_of(net).items() if kind.covers(rule)}
    whole, parts = ({layer: kind(rule) for layer, rule in rules.items()} for _ in range(2))
    shown = captured(net, x, lambda likelihood, _: HessianColumns(likelihood))
    passed = CurvaturePass(lambda batch: CategoricalOutput(net(batch[0])), {k: one.module for k, one in rules.items()})
    count = 0
    for some in passed.run([(x,)], lambda likelihood, _: HessianColumns(likelihood), portions=PORTIONS[portions]):
        count += 1
        for layer, one in parts.items():
            one.take(layer, some)
    assert count > 1
    for layer, one in whole.items():
        one.take(layer, shown)
        for key, value in one.sums().items():
            torch.testing.assert_close(parts[layer].sums()[key], value)


def test_images_of_one_channel_keep_the_usual_strides():
    """A channels-last view of them passes for contiguous, and convolutions then answer in channels-last."""
    seen = []
    x = torch.ones(4, 5, 5)[:, :, :, None].permute(0, 3, 1, 2)
    assert x.stride() != (25, 25, 5, 1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))

    def forward(batch: tuple[torch.Tensor, ...]) -> CategoricalOutput:
        seen.append(batch[0].stride())
        return CategoricalOutput(net(batch[0]))

    list(CurvaturePass(forward, {"1": net[1]}).run([(x,)], lambda likelihood, _: likelihood.sqrt_hessian()))
    assert seen == [(25, 25, 5, 1)]
