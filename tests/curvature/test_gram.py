"""Sums of outer products against the plain product."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.curvature.gram import GramSum

GENERATOR = torch.Generator().manual_seed(0)


def rows(groups: int, num: int, size: int) -> torch.Tensor:
    return torch.randn(groups, num, size, generator=GENERATOR, dtype=torch.float64)


def total(*parts: torch.Tensor, with_one: bool = False) -> torch.Tensor:
    products = GramSum()
    for part in parts:
        products.add(part, with_one=with_one)
    return products.total()


@pytest.mark.parametrize("size", [1, 7, 128, 192, 193, 401])
@pytest.mark.parametrize("num", [3, 450])
def test_blocks_of_the_lower_triangle_make_the_whole_product(size, num):
    vectors = rows(1, num, size)
    torch.testing.assert_close(total(vectors), vectors.mT @ vectors)


def test_each_group_has_its_own():
    vectors = rows(3, 300, 200)
    torch.testing.assert_close(total(vectors), vectors.mT @ vectors)


def test_a_one_that_goes_on_each_vector_is_the_column_of_a_bias():
    first, second = rows(2, 250, 200), rows(2, 3, 200)
    whole = torch.cat([first, second], 1)
    whole = torch.cat([whole, torch.ones_like(whole[..., :1])], -1)
    torch.testing.assert_close(total(first, second, with_one=True), whole.mT @ whole)


def test_the_sum_may_be_read_between_vectors():
    first, second = rows(1, 250, 200), rows(1, 240, 200)
    products = GramSum()
    products.add(first)
    torch.testing.assert_close(products.total(), first.mT @ first)
    products.add(second)
    torch.testing.assert_close(products.total(), first.mT @ first + second.mT @ second)


def test_a_loaded_sum_goes_on():
    first, second = rows(1, 250, 200), rows(1, 240, 200)
    products = GramSum()
    products.load(first.mT @ first)
    products.add(second)
    torch.testing.assert_close(products.total(), first.mT @ first + second.mT @ second)


def test_nothing_yet_is_zero():
    assert GramSum().total() == 0.0


def test_probes_are_the_diagonal_whether_mirrored_or_not():
    vectors = rows(2, 250, 200)
    products = GramSum()
    assert products.probes() == []
    products.add(vectors)
    torch.testing.assert_close(products.probes()[0], vectors.square().sum(1))


def test_many_small_terms_beside_a_few_large_ones_are_not_rounded_away():
    # as the outputs of a classifier that is sure of nearly all of its data
    sizes = torch.logspace(-4, 0, 200)[torch.randint(200, (300, 500), generator=GENERATOR)]
    parts = (torch.randn(300, 500, 8, generator=GENERATOR) * sizes[..., None]).float()
    parts = parts - parts.mean(-1, keepdim=True)  # singular, as a softmax is
    found = total(*parts[:, None]).double()
    exact = torch.einsum("bki,bkj->ij", parts.double(), parts.double())[None]
    assert (found - exact).abs().max() < 2e-6 * exact.max()
    assert torch.linalg.eigvalsh(found).min() > -2e-6 * exact.max()
