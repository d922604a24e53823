"""Gradients and curvature of chosen weights against those of all weights."""

from __future__ import annotations

import pytest
import torch

from tests.curvature.networks import build, captured, jacobians, rules_of
from wiu_pyro.curvature import FullCurvature
from wiu_pyro.curvature.entries import jacobian_of_entries


@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("name", ["linear", "no-bias", "sequence", "conv", "grouped", "batch-norm", "layer-norm-2d"])
def test_gradients_of_chosen_weights_are_those_among_all(name, count):
    net, x = build(name)
    found = captured(net, x, lambda likelihood, _: torch.eye(3, dtype=x.dtype)[:, None].expand(-1, len(x), -1))
    for layer, rule in rules_of(net).items():
        generator = torch.Generator().manual_seed(0)
        entries = torch.randperm(rule.numel, generator=generator)[:count].sort().values
        part = jacobian_of_entries(rule, found.inputs[layer], found.grads[layer], entries=entries)
        exact = jacobians(net, x, layer)
        # captured are gradients of log-probabilities or logits alike: compare differences between classes
        torch.testing.assert_close(
            part - part.mean(1, keepdim=True), (exact - exact.mean(1, keepdim=True))[..., entries]
        )


@pytest.mark.parametrize("limit", [2**24, 40])
def test_curvature_of_chosen_weights_is_that_part_of_the_whole(limit, monkeypatch):
    monkeypatch.setattr("wiu_pyro.curvature.full.MAX_ELEMENTS", limit)
    net, x = build("conv")
    found = captured(net, x, lambda likelihood, _: likelihood.sqrt_hessian())
    rules = rules_of(net)
    whole = FullCurvature(rules)
    whole.update(found)
    entries = {name: torch.arange(0, rule.numel, 7) for name, rule in rules.items()}
    part = FullCurvature(rules, entries)
    part.update(found)
    offsets = dict(zip(rules, [0, rules["0"].numel]))
    index = torch.cat([entries[name] + offsets[name] for name in rules])
    torch.testing.assert_close(part.matrix, whole.matrix[index][:, index])
    assert part.numel == len(index)
