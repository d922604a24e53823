"""Intervals that hold together, effect sizes and shares, each against a plain reference or a simulated truth."""

import numpy as np
import pytest
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.errors import DataError

RNG = np.random.default_rng(0)
ALL_PAIRS = np.triu_indices(4, 1)


def test_student_interval_of_one_column_is_that_of_the_paired_t_test():
    first, second = RNG.normal(size=(2, 7))
    found = metrics.student_intervals((first - second)[:, None])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((expected.low, expected.high))


def test_student_intervals_share_the_level_over_the_columns_that_have_values():
    values = RNG.normal(size=(5, 4))
    values[2, 3] = np.nan
    found = metrics.student_intervals(values, level=0.9)
    mean, error = values[:, :3].mean(axis=0), values[:, :3].std(axis=0, ddof=1) / np.sqrt(5)
    reach = stats.t.ppf(1 - 0.1 / 2 / 3, 4) * error
    np.testing.assert_allclose(found.high[:3], mean + reach)
    assert np.isnan([found.estimate[3], found.low[3], found.high[3]]).all()
    alone = metrics.student_intervals(values, level=0.9, simultaneous=False)
    np.testing.assert_allclose(alone.high[:3], mean + stats.t.ppf(0.95, 4) * error)


def test_a_single_replicate_has_a_mean_and_no_interval():
    found = metrics.student_intervals([[1.0, 2.0]])
    assert found.estimate.tolist() == [1.0, 2.0]
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


def simulated_layers(rng, *, shift=0.0, num_seeds=5):
    """Four layers over seeds, correlated within a seed and of unequal spread; the last one shifted."""
    seed_effect = rng.normal(size=(num_seeds, 1))
    layers = seed_effect * np.array([1.0, 0.5, 2.0, 1.0]) + rng.normal(size=(num_seeds, 4)) * [0.2, 1.0, 0.5, 0.2]
    return layers + np.array([0, 0, 0, shift])


def test_all_pairs_of_equal_layers_are_covered_together_at_the_stated_rate():
    rng, repeats = np.random.default_rng(1), 600
    missed = 0
    for _ in range(repeats):
        layers = simulated_layers(rng)
        found = metrics.student_intervals(layers[:, ALL_PAIRS[0]] - layers[:, ALL_PAIRS[1]])
        missed += bool(np.any((found.low > 0) | (found.high < 0)))
    # no more often than one in twenty, within three standard errors; and not never, which would be useless
    assert 0.005 < missed / repeats < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


def test_a_planted_difference_is_found_and_its_size_covered():
    rng, repeats = np.random.default_rng(2), 300
    place = [(i, j) for i, j in zip(*ALL_PAIRS, strict=True)].index((0, 3))
    found = []
    for _ in range(repeats):
        layers = simulated_layers(rng, shift=2.0)
        one = metrics.student_intervals(layers[:, ALL_PAIRS[0]] - layers[:, ALL_PAIRS[1]])
        found.append((one.high[place] < 0, one.low[place] <= -2.0 <= one.high[place]))
    power, coverage = np.mean(found, axis=0)
    assert power > 0.9
    assert coverage > 0.95


def two_way_table(rng, outputs, inputs):
    return 0.5 + rng.normal(size=(outputs, 1)) + rng.normal(size=(1, inputs)) + rng.normal(size=(outputs, inputs))


def test_pigeonhole_sums_equal_a_table_resampled_entry_by_entry():
    rng = np.random.default_rng(3)
    table, rows, columns = rng.normal(size=(6, 5)), rng.integers(6, size=(4, 6)), rng.integers(5, size=(4, 5))
    plain = [table[np.ix_(r, c)].sum() for r, c in zip(rows, columns, strict=True)]
    counts = [
        np.stack([np.bincount(one, minlength=size) for one in drawn], axis=1).astype(float)
        for drawn, size in ((rows, 6), (columns, 5))
    ]
    np.testing.assert_allclose(metrics.pigeonhole_sums(table, *counts), plain)


def test_pigeonhole_counts_draw_every_row_alike_with_replacement():
    counts = metrics.pigeonhole_counts(30, 2_000, rng=np.random.default_rng(4))
    assert (counts.sum(axis=0) == 30).all()
    # a count is binomial(30, 1/30): mean 1, variance 29/30
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=5 * np.sqrt(29 / 30 / 2_000))
    assert counts.var() == pytest.approx(29 / 30, rel=0.02)


def test_bootstrap_intervals_of_layers_drawn_alike_hold_together_even_with_twenty_clusters():
    rng, repeats = np.random.default_rng(5), 300
    missed = 0
    for _ in range(repeats):
        tables = [two_way_table(rng, 20, 24) for _ in range(3)]
        means = np.array(
            [
                metrics.pigeonhole_sums(
                    table,
                    metrics.pigeonhole_counts(20, 250, rng=rng).astype(float),
                    metrics.pigeonhole_counts(24, 250, rng=rng).astype(float),
                )
                for table in tables
            ]
        ) / (20 * 24)  # (layer, replicate)
        centre = np.array([table.mean() for table in tables])
        first, second = np.triu_indices(3, 1)
        found = metrics.bootstrap_intervals(
            centre[first] - centre[second], (means[first] - means[second]).T, num_clusters=20
        )
        missed += bool(np.any((found.low > 0) | (found.high < 0)))
    assert missed / repeats < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


def test_bootstrap_reach_is_the_quantile_of_the_largest_standardised_deviation():
    replicates = RNG.normal(size=(400, 3)) * [1.0, 5.0, 0.1]
    found = metrics.bootstrap_intervals([1.0, 2.0, np.nan], replicates)
    kept = replicates[:, :2]
    largest = np.max(np.abs(kept - kept.mean(axis=0)) / kept.std(axis=0, ddof=1), axis=1)
    np.testing.assert_allclose(found.high[:2] - found.estimate[:2], np.quantile(largest, 0.95) * kept.std(0, ddof=1))
    assert np.isnan(found.low[2])


@pytest.mark.parametrize("ties", [False, True])
def test_cliffs_delta_equals_the_count_over_all_pairs(ties):
    first, second = RNG.normal(size=40), RNG.normal(0.5, size=25)
    first, second = (first.round(0), second.round(0)) if ties else (first, second)
    plain = np.mean(np.sign(first[:, None] - second[None]))
    assert metrics.cliffs_delta(first, second) == pytest.approx(plain)
    assert metrics.cliffs_delta(second, first) == pytest.approx(-plain)


def test_wasserstein_is_the_area_between_the_quantile_functions():
    first, second = RNG.normal(size=300), RNG.gamma(2.0, size=300)
    assert metrics.wasserstein(first, second) == pytest.approx(np.abs(np.sort(first) - np.sort(second)).mean())


def test_a_grid_of_quantiles_keeps_cliffs_delta_within_its_bound():
    first, second = RNG.normal(size=9_000), RNG.normal(0.3, 1.2, size=7_001)
    first[:4_000] = 0.1  # a mass of equal values, as of dead weights
    size = 500
    exact = metrics.cliffs_delta(first, second)
    thinned = metrics.cliffs_delta(metrics.quantile_grid(first, size), metrics.quantile_grid(second, size))
    assert abs(exact - thinned) <= 2 / size
    assert metrics.quantile_grid(second, 7_001).tolist() == sorted(second)


@pytest.mark.parametrize("amounts", [[1.0, 2.0, 4.0, 0.0], [3.0, 3.0], RNG.gamma(1.0, size=9)])
def test_gini_and_evenness_equal_their_definitions(amounts):
    x = np.asarray(amounts)
    num, p = len(x), x[x > 0] / x.sum()
    gini = np.abs(x[:, None] - x).sum() / (2 * num * (num - 1) * x.mean())
    assert metrics.gini(x) == pytest.approx(gini)
    assert metrics.evenness(x) == pytest.approx(-(p * np.log(p)).sum() / np.log(num))


def test_shares_of_a_crossed_table_are_exact_sums_of_squares():
    table = RNG.normal(size=(4, 5, 3)) + RNG.normal(size=(4, 1, 1)) + 2 * RNG.normal(size=(1, 5, 1))
    shares = metrics.crossed_shares(table.astype(np.float32))
    total = np.sum((table - table.mean()) ** 2)
    for axis, other in enumerate([(1, 2), (0, 2), (0, 1)]):
        effect = table.mean(axis=other) - table.mean()
        assert shares[axis] == pytest.approx(table.size / table.shape[axis] * np.sum(effect**2) / total, rel=1e-5)
    assert shares.sum() == pytest.approx(1)


def test_a_table_without_spread_has_no_shares():
    assert np.isnan(metrics.crossed_shares(np.full((3, 4), 0.1, np.float32))).all()


def test_a_spectrum_in_one_direction_has_rank_one_and_a_flat_one_all():
    assert metrics.participation_ratio([0, 3.0, 0]) == pytest.approx(1)
    assert metrics.effective_rank([0, 3.0, 0]) == pytest.approx(1)
    values = 0.5 ** np.arange(60)
    assert metrics.participation_ratio(values) == pytest.approx(3)  # (Σ q^i)² / Σ q^2i with q = 1/2
    assert metrics.effective_rank(values) == pytest.approx(4)  # entropy of a geometric distribution: 2 bits
    assert metrics.effective_rank(np.ones(7)) == pytest.approx(7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.student_intervals([1.0, 2.0]), "A table of replicates by comparisons is needed"),
        (lambda: metrics.student_intervals([[1.0]], level=95), "A level between 0 and 1 is needed, got 95"),
        (lambda: metrics.bootstrap_intervals([1.0], [[1.0, 2.0]]), "One estimate for each column"),
        (lambda: metrics.cliffs_delta([], [1.0]), "got 0 values"),
        (lambda: metrics.cliffs_delta([np.nan], [1.0]), "1 of them NaN"),
        (lambda: metrics.wasserstein([np.inf], [1.0]), "A distance needs finite values"),
        (lambda: metrics.quantile_grid([1.0], 0), "got size=0"),
        (lambda: metrics.gini([1.0, -1.0]), "At least two amounts are needed, not negative"),
        (lambda: metrics.evenness([0.0, 0.0]), "not all zero"),
        (lambda: metrics.crossed_shares([1.0, 2.0]), "at least two axes"),
        (lambda: metrics.participation_ratio([0.0]), "Eigenvalues are needed, not negative and not all zero"),
        (lambda: metrics.effective_rank([-1.0, 2.0]), "Eigenvalues are needed"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
