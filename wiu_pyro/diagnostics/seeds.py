"""How many networks a file holds: trainings from different seeds, the replicates of everything said of layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from wiu_pyro import schema

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
    """
    attrs = schema.attrs(idata)
    chains = int(schema.dataset(idata, "posterior").sizes.get("chain", 1))
    if str(attrs.get("guide", "")) == "MCMC":
        return 1
    listed = np.atleast_1d(attrs.get("seed", 0))
    return len(set(listed.tolist())) if listed.size == chains else chains
