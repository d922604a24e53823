"""The closed form against every permutation there is, and the parts of variation against plain means."""

from itertools import permutations, product

import numpy as np
import pytest

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.permutation import parts_of_variation, permutation_sd

RNG = np.random.default_rng(0)


def effects(shape):
    """Return an array whose axes and their pairs all matter."""
    parts = [tuple(size if keep else 1 for size, keep in zip(shape, kept)) for kept in product([0, 1], repeat=3)]
    return sum(RNG.normal(size=part) for part in parts)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 1, 3), (5, 1, 1), (1, 4, 3), (3, 4, 1)])
def test_sd_is_that_over_all_permutations_of_the_axes(shape):
    first, second = effects(shape), effects(shape)
    centred = first - first.mean()
    found = [
        np.sum(centred * second[np.ix_(*order)]) for order in product(*(permutations(range(size)) for size in shape))
    ]
    expected = permutation_sd(parts_of_variation(first), parts_of_variation(second), shape=shape)
    assert expected == pytest.approx(np.std(found), rel=1e-9)
    assert np.mean(found) == pytest.approx(0, abs=1e-9)


def test_parts_of_a_table_are_those_of_an_analysis_of_variance():
    table = effects((6, 5, 1))[..., 0]
    rows, columns, mean = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True), table.mean()
    parts = parts_of_variation(table)
    assert parts[0,] == pytest.approx(5 * np.sum((rows - mean) ** 2))
    assert parts[1,] == pytest.approx(6 * np.sum((columns - mean) ** 2))
    assert parts[0, 1] == pytest.approx(np.sum((table - rows - columns + mean) ** 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_add_up_to_the_whole(dtype):
    array = effects((30, 20, 9)).astype(dtype)
    assert sum(parts_of_variation(array).values()) == pytest.approx(array.size * array.var(dtype=float), rel=1e-5)


def test_an_array_with_gaps_is_refused():
    with pytest.raises(DataError, match="1 of 4 are not"):
        parts_of_variation([[0.0, np.nan], [1.0, 2.0]])
