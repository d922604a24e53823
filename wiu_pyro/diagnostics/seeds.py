"""How many networks a file holds: trainings from different seeds, the replicates of everything said of layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from wiu_pyro import metrics, schema

__all__ = ["num_seeds"]


def num_seeds(idata: Any) -> int:
    """Return how many networks, trained from different seeds, stand along `chain`.

    Parameters
    ----------
    idata : InferenceData or DataTree

    Returns
    -------
    int
        1 for all chains of an MCMC run, which explore one posterior; the number of chains where the attribute ``seed``
        does not list one for each; otherwise what `wiu_pyro.metrics.num_replicates` counts.

    Raises
    ------
    DataError
        If there are seeds enough for intervals over them, but some stand twice.
    """
    attrs = schema.attrs(idata)
    chains = int(schema.dataset(idata, "posterior").sizes.get("chain", 1))
    if str(attrs.get("guide", "")) == "MCMC":
        return 1
    listed = np.atleast_1d(attrs.get("seed", 0))
    return metrics.num_replicates(listed.tolist()) if listed.size == chains else chains
