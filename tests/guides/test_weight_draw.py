"""Draws not made yet: they become one and the same draw where needed, and none where a layer samples its output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import functional_call

from wiu_pyro.errors import ModelError
from wiu_pyro.guides.output_noise import RULES
from wiu_pyro.guides.weight_draw import DrawSource, WeightDraw


def source(*shape: int, rule: str = "local", **options) -> DrawSource:
    generator = torch.Generator().manual_seed(0)
    loc, scale = (torch.rand(*shape, generator=generator).requires_grad_() for _ in range(2))
    return DrawSource(loc, scale, RULES[rule], **options)


def test_shape_and_type_are_known_without_a_draw():
    whole = source(8)
    weight = whole.draw()[..., :6].view(2, 3)
    assert isinstance(weight, WeightDraw)
    assert (weight.shape, weight.dtype, weight.dim(), len(weight), weight.numel()) == ((2, 3), torch.float32, 2, 2, 6)
    assert type(torch.zeros_like(weight)) is torch.Tensor
    assert whole.drawn == {}


def test_layer_samples_its_output_without_a_draw():
    whole = source(8)
    draw = whole.draw()
    output = functional_call(nn.Linear(3, 2), {"weight": draw[:6].view(2, 3), "bias": draw[6:]}, (torch.ones(4, 3),))
    assert type(output) is torch.Tensor
    assert whole.drawn == {}
    output.sum().backward()
    torch.testing.assert_close(whole.loc.grad, torch.full((8,), 4.0))


def test_any_other_operation_gets_the_same_draw_each_time():
    draw = source(8).draw()
    part = draw[2:5] * 1
    torch.testing.assert_close(part, (draw * 1)[2:5])
    torch.testing.assert_close(part, draw[2:5] + 0)
    torch.testing.assert_close(draw.sum(), (draw * 1).sum())


def test_part_drawn_after_the_whole_is_of_the_whole():
    draw = source(8).draw()
    whole = draw + 0
    torch.testing.assert_close(draw[2:5].view(3, 1) + 0, whole[2:5].view(3, 1))


def test_draw_is_on_the_graph_of_means_and_sds():
    whole = source(4)
    draw = whole.draw()
    value = draw + 0
    value.sum().backward()
    noise = (value - whole.loc) / whole.scale
    torch.testing.assert_close(whole.loc.grad, torch.ones(4))
    torch.testing.assert_close(whole.scale.grad, noise.detach())


def test_log_prob_is_that_of_the_draw_less_the_parts_in_closed_form():
    whole = source(8)
    value = whole.draw() + 0
    whole.closed = {(2, 5): torch.zeros(())}
    densities = torch.distributions.Normal(whole.loc, whole.scale).log_prob(value)
    assert whole.open_spans() == [(0, 2), (5, 8)]
    torch.testing.assert_close(whole.log_prob(), densities[:2].sum() + densities[5:].sum())


def test_parts_by_shape_are_views_of_one_source():
    whole = source(8)
    weight, bias = whole.split([torch.Size([2, 3]), torch.Size([2])])
    assert (weight.span, bias.span) == ((0, 6), (6, 8))
    torch.testing.assert_close(torch.cat([weight.reshape(-1) * 1, bias * 1]), whole.draw() * 1)


@pytest.mark.parametrize("index", [0, slice(None, None, 2), None])
def test_an_index_that_is_no_plain_part_gives_the_draw(index):
    assert type(source(8).draw()[index]) is torch.Tensor


def test_rows_that_are_no_data_get_the_draw():
    whole = source(2, 3, num_rows=4)
    weight = whole.draw()
    x = torch.rand(8, 3)
    torch.testing.assert_close(F.linear(x, weight), F.linear(x, weight * 1))
    assert whole.drawn


def test_weights_used_twice_are_refused_with_the_way_out():
    weight = source(3, 3).draw()
    x = F.linear(torch.rand(4, 3), weight)
    with pytest.raises(ModelError, match=r"shape \(3, 3\) were used twice.*estimator=\"reparam\""):
        F.linear(x, weight)


TRANSPOSED = {
    "t": lambda x, weight: F.linear(x, weight.t()),
    "T": lambda x, weight: x @ weight.T,
    "matmul": lambda x, weight: x @ weight,
    "embedding": lambda x, weight: F.embedding(torch.tensor([0, 2]), weight),
    "other rows": lambda x, weight: F.linear(x[:2], weight),
}


@pytest.mark.parametrize("use", TRANSPOSED.values(), ids=TRANSPOSED)
@pytest.mark.parametrize("rule", ["local", "flipout"])
def test_weights_of_a_sampled_output_cannot_be_drawn_for_another_layer(use, rule):
    x = torch.rand(4, 3)
    weight = source(3, 3, rule=rule, num_rows=4).draw()
    F.linear(x, weight)
    with pytest.raises(ModelError, match=r"used twice.*would not share their noise"):
        use(x, weight)
    weight = source(3, 3, rule=rule, num_rows=4).draw()
    use(x, weight)
    with pytest.raises(ModelError, match="used twice"):
        F.linear(x, weight)


def test_one_draw_for_the_batch_may_be_used_twice():
    weight = source(3, 3, rule="reparam").draw()
    x = torch.rand(4, 3)
    torch.testing.assert_close(F.linear(F.linear(x, weight), weight), x @ weight.T @ weight.T)
