"""The table of posteriors counts what it says, and each of its posteriors can be made of its networks."""

import numpy as np
import pytest

from tests.benchmarks.cases import NETWORKS, networks
from tests.benchmarks.posteriors import CASES, ROWS, table
from tests.benchmarks.predictions import scores


@pytest.mark.parametrize("by_entropy", [False, True])
def test_scores_of_two_sure_answers_one_of_them_wrong_and_an_unsure_stranger(by_entropy):
    known = np.array([[0.9, 0.1], [0.8, 0.2]])
    found = scores(known, np.array([0, 1]), np.array([[0.5, 0.5]]), by_entropy=by_entropy)
    assert found["error %"] == pytest.approx(50)
    assert found["NLL"] == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 2)
    assert found["AUROC"] == pytest.approx(100)  # the stranger is the least sure


def test_table_gives_mean_and_standard_deviation_over_seeds_and_counts_the_converged():
    results = [{row: value for row in ROWS} | {"converged": value > 1} for value in (1.0, 3.0)]
    line = table({"mean field": results}).splitlines()[1]
    assert line.count("2.00 ± 1.41") == 3  # error, AUROC, minutes
    assert line.endswith("1 of 2")


def test_point_estimates_say_nothing_of_convergence():
    results = [{row: 1.0 for row in ROWS} | {"converged": None}]
    assert table({"point estimate": results}).splitlines()[1].endswith("-")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_posterior_of_the_table_can_be_made(network):
    _, model = networks(network)
    for case in CASES.values():
        assert case.make(model) is not None
