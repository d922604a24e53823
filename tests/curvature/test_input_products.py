"""Σ a a' without patches against patches laid out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wiu_pyro.curvature import input_products, rule_for
from wiu_pyro.curvature.input_products import InputProducts

CONVOLUTIONS = {
    "plain": (nn.Conv2d(2, 3, 3), (6, 6)),
    "no bias": (nn.Conv2d(2, 3, 3, bias=False), (6, 7)),
    "one row": (nn.Conv2d(2, 3, 3), (3, 9)),
    "kernel above the positions": (nn.Conv2d(2, 3, (4, 2)), (5, 6)),
    "padded": (nn.Conv2d(2, 3, 5, padding=2), (6, 6)),
    "padded unevenly": (nn.Conv2d(1, 3, (2, 4), padding="same"), (7, 8)),
    "reflecting": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (6, 6)),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (6, 6)),
    "stride": (nn.Conv2d(2, 3, 3, stride=2), (7, 7)),
    "dilated": (nn.Conv2d(2, 3, 3, dilation=2), (8, 8)),
    "groups": (nn.Conv2d(4, 4, 3, groups=2), (6, 6)),
}
BY_ROWS = set(list(CONVOLUTIONS)[:8])


def rule_of(module: nn.Module):
    return rule_for(module, {name: tuple(value.shape) for name, value in module.named_parameters()})


def images(module: nn.Conv2d, size: tuple[int, int], num: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, module.in_channels, *size, generator=generator, dtype=torch.float64)


def plain(rule, x: torch.Tensor) -> torch.Tensor:
    inputs = rule.inputs(x).transpose(0, 1).flatten(1, 2)
    return inputs.mT @ inputs


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_products_of_pixel_rows_make_those_of_patches(name, monkeypatch):
    module, size = CONVOLUTIONS[name]
    rule, x = rule_of(module), images(module, size)
    monkeypatch.setattr(input_products, "MAX_PATCH_ELEMENTS", 200)  # a few data at a time
    monkeypatch.setattr(input_products, "_rows_pay", input_products._rows_cover)  # whatever they cost
    sums = InputProducts(rule)
    uses = sums.add(x[:2]) + sums.add(x[2:])
    assert uses == len(x) * rule.inputs(x).shape[2]
    torch.testing.assert_close(sums.total(), plain(rule, x))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_cover_stride_one_and_one_group(name):
    module, size = CONVOLUTIONS[name]
    assert input_products._rows_cover(rule_of(module), images(module, size)) == (name in BY_ROWS)


def test_rows_are_used_only_where_they_take_less():
    many_channels, few = nn.Conv2d(64, 8, 3, padding=1), nn.Conv2d(6, 16, 5)
    assert not input_products._rows_pay(rule_of(many_channels), images(many_channels, (32, 32), 1))
    assert input_products._rows_pay(rule_of(few), images(few, (14, 14), 1))


def test_images_of_another_size_and_a_loaded_sum_come_in():
    module, _ = CONVOLUTIONS["padded"]
    rule = rule_of(module)
    small, large = images(module, (6, 6)), images(module, (8, 7))
    sums = InputProducts(rule)
    sums.add(small)
    sums.add(large)
    torch.testing.assert_close(sums.total(), plain(rule, small) + plain(rule, large))
    again = InputProducts(rule)
    again.load(sums.total().clone())
    again.add(small)
    torch.testing.assert_close(again.total(), 2 * plain(rule, small) + plain(rule, large))


@pytest.mark.parametrize("shapes", [("weight",), ("bias",), ("weight", "bias")])
def test_linear_layer_with_any_of_its_parameters(shapes):
    module = nn.Linear(4, 3)
    rule = rule_for(module, {name: tuple(getattr(module, name).shape) for name in shapes})
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = InputProducts(rule)
    assert sums.add(x) == 6
    torch.testing.assert_close(sums.total(), plain(rule, x))
