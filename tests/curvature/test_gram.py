"""Sums of outer products against the plain product."""

from __future__ import annotations

import pytest
import torch

from wiu_pyro.curvature.gram import add_gram

GENERATOR = torch.Generator().manual_seed(0)


def rows(groups: int, num: int, size: int) -> torch.Tensor:
    return torch.randn(groups, num, size, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 7, 192, 193, 401])
@pytest.mark.parametrize("num", [3, 450])
def test_blocks_of_the_upper_triangle_make_the_whole_product(size, num):
    vectors = rows(1, num, size)
    torch.testing.assert_close(add_gram(0.0, vectors), vectors.mT @ vectors)


def test_each_group_has_its_own():
    vectors = rows(3, 300, 200)
    torch.testing.assert_close(add_gram(0.0, vectors), vectors.mT @ vectors)


def test_total_grows_in_place_also_as_a_part_of_a_larger_matrix():
    first, second = rows(1, 250, 200), rows(1, 240, 200)
    larger = torch.zeros(1, 201, 201, dtype=torch.float64)
    for vectors in (first, second):
        add_gram(larger[:, :-1, :-1], vectors)
    torch.testing.assert_close(larger[:, :-1, :-1], first.mT @ first + second.mT @ second)
    assert not larger[:, -1].any()
