"""Figures of pruned networks against the metrics, and safe sparsity against the tests done one by one."""

import numpy as np
import pytest
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.interventions.judgement import Judge, Judged, safe_sparsity, seeds_no_worse


def predictions(rng, num=500, sharpness=2.0):
    logits = sharpness * rng.normal(size=(num, 4))
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    first = predictions(rng)
    first[np.arange(250), labels[:250]] += 2
    first /= first.sum(1, keepdims=True)
    second = first.copy()
    second[:60] = predictions(rng, 60)
    return first, second, labels


def test_figures_are_those_of_the_metrics(pair):
    p, _, labels = pair
    found = Judged.of(p, labels).figures
    assert found["error"] == pytest.approx(1 - metrics.accuracy(p, labels))
    assert found["nll"] == pytest.approx(metrics.nll(p, labels))
    assert found["ece"] == pytest.approx(metrics.ece(p, labels), abs=1e-6)


def test_resampled_ece_is_that_of_the_resampled_images(pair):
    p, _, labels = pair
    index = np.random.default_rng(1).integers(0, 500, 500)
    counts = np.bincount(index, minlength=500)[None] / 500
    found = Judged.of(p, labels).resampled_ece(counts.astype(np.float32))
    assert found[0] == pytest.approx(metrics.ece(p[index], labels[index]), abs=1e-6)


def test_interval_of_the_nll_is_that_of_the_paired_standard_error(pair):
    unpruned, pruned, labels = pair
    judge = Judge.of(500, level=0.95, margin=0.001, seed=0)
    found = judge.curve([Judged.of(pruned, labels)], Judged.of(unpruned, labels))
    paired = metrics.mean_with_se(metrics.nll_pointwise(pruned, labels) - metrics.nll_pointwise(unpruned, labels))
    assert found["nll_difference"][0] == pytest.approx(paired.value)
    half = (found["nll_difference_high"] - found["nll_difference_low"])[0] / 2
    assert half == pytest.approx(1.96 * paired.se, rel=0.2)  # of 200 resamples


def test_interval_of_the_error_is_tangos_at_the_level_shared_by_the_shares(pair):
    unpruned, pruned, labels = pair
    judge = Judge.of(500, level=0.95, margin=0.001, seed=0)
    found = judge.curve([Judged.of(pruned, labels)] * 5, Judged.of(unpruned, labels))
    wrong, before = (p.argmax(1) != labels for p in (pruned, unpruned))
    expected = metrics.paired_share_interval(
        int((wrong & ~before).sum()), int((before & ~wrong).sum()), 500, level=0.99
    )
    assert (found["error_difference_low"][0], found["error_difference_high"][0]) == pytest.approx(expected)


def test_network_worse_by_the_margin_passes_as_seldom_as_the_level_says():
    rng = np.random.default_rng(0)
    num, passed = 3000, []
    for _ in range(400):
        before, after = rng.random(num) < 0.02, rng.random(num)
        wrong = np.where(before, after < 0.9, after < 0.012 / 0.98)  # 0.018 + 0.012: worse by 0.01
        judged = [Judged(w, np.zeros(num), np.zeros(num, np.uint8), np.zeros(num)) for w in (wrong, before)]
        judge = Judge(0.95, 0.01, np.zeros((1, num), np.float32))
        passed.append(judge.no_worse([judged[0]], judged[1])[0])
    assert np.mean(passed) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_seeds_are_judged_by_a_one_sided_t_test():
    rng = np.random.default_rng(0)
    rises = rng.normal(0.0005, 0.0004, size=(5, 40))
    expected = [stats.ttest_1samp(rises[:, i], 0.001, alternative="less").pvalue < 0.05 for i in range(40)]
    assert seeds_no_worse(rises, level=0.95, margin=0.001).tolist() == expected
    assert 0 < sum(expected) < 40


@pytest.mark.parametrize(
    ("passed", "expected"), [([0, 1, 1], 0.0), ([1, 1, 0], 0.9), ([1, 0, 1], 0.5), ([1, 1, 1], 0.99)]
)
def test_safe_sparsity_is_the_last_before_the_first_failure(passed, expected):
    assert safe_sparsity(np.array(passed, bool), (0.5, 0.9, 0.99)) == expected
