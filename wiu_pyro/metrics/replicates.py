"""Networks trained from different seeds: the replicates that everything said of a network's layers rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from wiu_pyro.errors import DataError

__all__ = ["FEWEST_SEEDS", "num_replicates"]

FEWEST_SEEDS = 5  # below which nothing has an interval over seeds


def num_replicates(seeds: Sequence[int]) -> int:
    """Return how many different trainings stand behind some networks.

    Parameters
    ----------
    seeds : sequence of int
        Of each network.

    Returns
    -------
    int
        A seed that stands twice counts once.

    Raises
    ------
    DataError
        If there are seeds enough for intervals over them, but some stand twice: as further replicates these would make
        the intervals too narrow.
    """
    found = Counter(seeds)
    twice = sorted(seed for seed, count in found.items() if count > 1)
    if twice and len(found) >= FEWEST_SEEDS:
        raise DataError(
            f"Networks from different seeds are needed as replicates, but of {len(seeds)} networks seed "
            f"{', '.join(map(str, twice))} stands more than once. Give each seed once."
        )
    return len(found)
