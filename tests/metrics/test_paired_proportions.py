"""Paired shares: Tango's score against the likelihood maximised by brute force, and against closed forms."""

import numpy as np
import pytest
from scipy import optimize

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.paired_proportions import paired_score, paired_share_interval


def constrained(first, second, num, difference):
    """Probability of `second` alone that maximises the likelihood where first = second + difference."""

    def loss(q):
        cells = {first: q + difference, second: q, num - first - second: 1 - difference - 2 * q}
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells.items() if count)

    return optimize.minimize_scalar(
        loss, bounds=(1e-12, (1 - difference) / 2 - 1e-12), method="bounded", options={"xatol": 1e-12}
    ).x


@pytest.mark.parametrize("counts", [(12, 1, 44), (3, 7, 200), (25, 20, 90)])
@pytest.mark.parametrize("difference", [0.0, 0.05, 0.3])
def test_score_has_the_variance_at_the_constrained_maximum_of_the_likelihood(counts, difference):
    first, second, num = counts
    q = constrained(first, second, num, difference)
    variance = num * (2 * q + difference * (1 - difference))
    expected = (first - second - num * difference) / np.sqrt(variance)
    assert paired_score(*counts, difference=difference) == pytest.approx(expected, rel=1e-4)


def test_score_of_no_difference_is_mcnemars():
    assert paired_score(14, 6, 100, difference=0.0) == pytest.approx(8 / np.sqrt(20))


def test_score_of_a_negative_difference_is_that_of_the_exchanged_shares():
    assert paired_score(3, 9, 60, difference=-0.1) == -paired_score(9, 3, 60, difference=0.1)


def test_no_disagreement_rules_a_difference_out_only_with_enough_pairs():
    assert paired_score(0, 0, 1000, difference=0.001) == pytest.approx(-np.sqrt(1000 * 0.001 / 0.999))


def test_no_disagreement_says_nothing_against_no_difference():
    assert paired_score(0, 0, 10, difference=0.0) == 0


@pytest.mark.parametrize("counts", [(12, 1, 44), (0, 0, 500), (0, 44, 44), (44, 0, 44), (9, 1, 14)])
def test_ends_of_the_interval_are_where_the_score_reaches_its_quantile(counts):
    low, high = paired_share_interval(*counts)
    assert -1 <= low <= (counts[0] - counts[1]) / counts[2] <= high <= 1
    for end, sign in ((low, 1), (high, -1)):
        if abs(end) < 1:
            assert paired_score(*counts, difference=end) == pytest.approx(sign * 1.959964, abs=1e-4)


def test_interval_of_a_rare_difference_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = 0.01 - 0.004
    draws = rng.multinomial(400, [0.01, 0.004, 0.986], size=1000)
    covered = [low <= truth <= high for low, high in (paired_share_interval(a, b, 400) for a, b, _ in draws)]
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 1000)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_are_none_of_pairs_are_refused(counts):
    with pytest.raises(DataError, match="Counts of pairs are needed"):
        paired_share_interval(*counts)


def test_a_difference_in_percent_is_refused():
    with pytest.raises(DataError, match="not percent"):
        paired_score(1, 0, 10, difference=5.0)


def test_a_level_outside_0_to_1_is_refused():
    with pytest.raises(DataError, match="level between 0 and 1"):
        paired_share_interval(1, 0, 10, level=95)
