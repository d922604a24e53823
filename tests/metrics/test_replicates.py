"""How many different trainings stand behind some networks."""

from __future__ import annotations

import pytest

from wiu_pyro.errors import DataError
from wiu_pyro.metrics import FEWEST_SEEDS, num_replicates


@pytest.mark.parametrize(
    ("seeds", "num"),
    [([], 0), ([3], 1), ([0, 1, 2, 3, 4], 5), ([7] * 5, 1), ([0, 1, 2, 3, 3], 4)],
    ids=["none", "one", "all different", "one network five times", "one of them twice, too few left"],
)
def test_a_seed_that_stands_twice_counts_once(seeds, num):
    assert num_replicates(seeds) == num


def test_copies_that_would_narrow_an_interval_are_refused_by_their_seeds():
    with pytest.raises(DataError, match=r"of 8 networks seed 1, 4 stands more than once"):
        num_replicates([*range(FEWEST_SEEDS), 4, 1, 1])
