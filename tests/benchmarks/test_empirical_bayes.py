"""The measure of empirical Bayes: every case of its table runs, small, and the table has their means."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.empirical_bayes import CASES, COLUMNS, figures, table


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_every_case_runs(case):
    found = figures(case, 0, epochs=11)  # one more than the epochs that "empirical-bayes" waits for
    assert all(math.isfinite(found[name]) for name in COLUMNS)
    assert 0 < found["KL"] < found["-ELBO"]


def test_table_has_means_over_seeds_and_counts_the_converged():
    rows = [dict.fromkeys(COLUMNS, value) | {"converged": value > 1} for value in (1.0, 2.0)]
    assert table({"as it is": rows}).splitlines()[1].split() == [
        "as",
        "it",
        "is",
        "1.5",
        *["1.500"] * 3,
        *"1 of 2".split(),
    ]
