"""Differences that every posterior finds, those on which they contradict each other, and those left open."""

import numpy as np
import pytest
import xarray as xr

from wiu_pyro.diagnostics import agreed_pairs_statement
from wiu_pyro.errors import DataError


def table(low, high, metric="contraction"):
    pairs = ["fc1 − fc2", "fc1 − fc3", "fc2 − fc3"]
    data = {"seeds_low": (("metric", "pair"), [low]), "seeds_high": (("metric", "pair"), [high])}
    return xr.Dataset(data, coords={"metric": [metric], "pair": pairs})


def test_a_pair_that_all_find_is_named_and_one_they_contradict_each_other_on_too():
    found = agreed_pairs_statement(
        {"vi": table([-2, 1, -1], [-1, 2, 1]), "kfac": table([-3, -2, 1], [-2, -1, 2], "conditional_contraction")}
    )
    assert "1 differs in conditional contraction the same way by all of vi, kfac: 'fc2' above 'fc1'." in found
    assert "contradict each other, beyond what seeds differ by, on 1: fc1 − fc3." in found
    assert "Of 1 some posteriors cannot tell." in found


def test_a_posterior_that_has_no_pair_takes_no_part():
    nothing = table([np.nan] * 3, [np.nan] * 3)
    same = {"vi": table([1, 1, 1], [2, 2, 2]), "diag": table([1, 1, 1], [2, 2, 2]), "last": nothing}
    assert "Of 3 pairs of layers 3 differ in conditional contraction the same way by all of vi, diag:" in (
        agreed_pairs_statement(same)
    )


def test_one_posterior_alone_is_refused():
    with pytest.raises(DataError, match="Two posteriors with intervals between layers are needed, got 1"):
        agreed_pairs_statement({"vi": table([1, 1, 1], [2, 2, 2])})
