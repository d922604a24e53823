"""How many networks a file holds: trainings from different seeds, the replicates of everything said of layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from wiu_pyro import schema
from wiu_pyro.errors import SchemaError

__all__ = ["FEWEST_SEEDS", "num_seeds"]

FEWEST_SEEDS = 5  # below which the tables give no interval over seeds


def num_seeds(idata: Any) -> int:
    """Return how many networks, trained from different seeds, stand along `chain`.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    int
        1 for all chains of an MCMC run, which explore one posterior; otherwise the number of chains, of which a seed
        that stands twice in the attribute ``seed`` counts once.

    Raises
    ------
    SchemaError
        If there are seeds enough for intervals over them, but some stand twice: as further replicates these would
        make the intervals too narrow.
    """
    attrs = schema.attrs(idata)
    chains = int(schema.dataset(idata, "posterior").sizes.get("chain", 1))
    if str(attrs.get("guide", "")) == "MCMC":
        return 1
    listed = np.atleast_1d(attrs.get("seed", 0))
    if listed.size != chains:
        return chains
    found = Counter(listed.tolist())
    twice = [str(seed) for seed, count in found.items() if count > 1]
    if twice and len(found) >= FEWEST_SEEDS:
        raise SchemaError(
            f"Networks from different seeds are needed as replicates, but of {chains} chains seed {', '.join(twice)} "
            "stands more than once. Join each seed once with wiu_pyro.concat."
        )
    return len(found)
