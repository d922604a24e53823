"""Ranks against SciPy's, and ranks under weights against the values repeated."""

import numpy as np
import pytest
from scipy import stats

from wiu_pyro.errors import DataError
from wiu_pyro.metrics.ranks import correlation, rank_shares, ranked, sorting_order, spearman, weighted_median

RNG = np.random.default_rng(0)
FIRST = np.round(RNG.normal(size=500), 1)
SECOND = np.round(FIRST + RNG.normal(size=500), 1)


def test_rank_correlation_with_ties_is_scipys():
    assert spearman(FIRST, SECOND) == pytest.approx(stats.spearmanr(FIRST, SECOND).statistic, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_sorted_whatever_their_sign_and_type(dtype):
    values = np.concatenate([RNG.normal(size=1000), [0.0, -0.0, 1e-44, -1e-44, 3e38, -3e38]]).astype(dtype)
    ordered = values[sorting_order(values)]
    np.testing.assert_array_equal(ordered, np.sort(values))


def test_zero_and_minus_zero_are_a_tie():
    assert rank_shares(np.array([0.0, -0.0, 1.0, -1.0], dtype=np.float32)).tolist() == [0.5, 0.5, 0.875, 0.125]


def test_rank_shares_are_mean_ranks():
    np.testing.assert_allclose(rank_shares(FIRST), (stats.rankdata(FIRST) - 0.5) / 500, rtol=1e-6)


def test_ranks_under_weights_are_those_of_the_values_repeated():
    weights = RNG.integers(0, 4, size=500)
    repeated = np.repeat(FIRST, weights)
    expected = (stats.rankdata(repeated) - 0.5) / repeated.size
    shares = ranked(FIRST).share(weights.astype(float))
    np.testing.assert_allclose(np.repeat(shares, weights), expected, rtol=1e-12)


def test_correlation_under_weights_is_that_of_the_pairs_repeated():
    weights = RNG.integers(0, 4, size=500)
    expected = np.corrcoef(np.repeat(FIRST, weights), np.repeat(SECOND, weights))[0, 1]
    assert correlation(FIRST, SECOND, weights) == pytest.approx(expected, rel=1e-12)


def test_a_constant_has_no_rank_correlation():
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_weighted_median_is_that_of_the_values_repeated():
    values, weights = np.sort(FIRST), RNG.integers(0, 4, size=500)
    repeated = np.repeat(values, weights)
    assert weighted_median(values, weights) == np.quantile(repeated, 0.5, method="inverted_cdf")


def test_what_has_no_ranks_is_refused():
    with pytest.raises(DataError, match="1 that are not finite"):
        ranked([1.0, np.nan])
    with pytest.raises(DataError, match=r"one length.*\(2,\) and \(3,\)"):
        spearman([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="a positive sum"):
        weighted_median([1.0, 2.0], [0.0, 0.0])
