"""Metrics of predictions against scikit-learn, plain loops and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from wiu_pyro import metrics
from wiu_pyro.errors import DataError

RNG = np.random.default_rng(3)
PROBABILITIES = RNG.dirichlet(np.full(4, 0.4), size=200)
LABELS = np.array([RNG.choice(4, p=p) for p in PROBABILITIES])


def test_nll_equals_scikit_learn_log_loss():
    assert metrics.nll(PROBABILITIES, LABELS) == pytest.approx(log_loss(LABELS, PROBABILITIES, labels=range(4)))


def test_accuracy_equals_scikit_learn():
    assert metrics.accuracy(PROBABILITIES, LABELS) == accuracy_score(LABELS, PROBABILITIES.argmax(axis=1))


def test_brier_is_the_sum_over_classes_of_one_against_rest_scores():
    expected = sum(brier_score_loss(LABELS == c, PROBABILITIES[:, c]) for c in range(4))
    assert metrics.brier(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_a_probability_of_zero_costs_the_smallest_normal_number_and_nothing_else_is_clipped():
    tiny = np.finfo(np.float32).tiny
    p = np.array([[1.0, 0.0], [1.0, 1e-30]], dtype=np.float32)
    np.testing.assert_allclose(metrics.nll_pointwise(p, [1, 1]), [-np.log(tiny), 30 * np.log(10)], rtol=1e-6)


def test_ece_equals_a_loop_over_bins():
    confidence, hit = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == LABELS
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert metrics.ece(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_reliability_counts_every_image_once_and_leaves_empty_bins_undefined():
    table = metrics.reliability(PROBABILITIES, LABELS, bins=7)
    assert table.count.sum() == len(LABELS)
    np.testing.assert_array_equal(np.isnan(table.accuracy), table.count == 0)
    assert np.nansum(table.count * table.confidence) == pytest.approx(PROBABILITIES.max(axis=1).sum())


def test_ece_of_sure_and_right_predictions_is_zero_and_of_sure_and_wrong_ones_one():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert metrics.ece(sure, [0, 1, 2, 0]) == 0
    assert metrics.ece(sure, [1, 2, 0, 1]) == 1


def test_entropy_parts_add_up_and_equal_a_loop():
    draws = RNG.dirichlet(np.ones(3), size=(5, 7))
    parts = metrics.entropy_parts(draws)
    for n in range(7):
        expected = np.mean([-sum(p * np.log(p) for p in draws[s, n]) for s in range(5)])
        mean = draws[:, n].mean(axis=0)
        assert parts.expected[n] == pytest.approx(expected)
        assert parts.predictive[n] == pytest.approx(-sum(p * np.log(p) for p in mean))
    np.testing.assert_allclose(parts.predictive, parts.expected + parts.mutual_information)


@given(arrays(np.float64, (3, 4, 5), elements=st.floats(0.001, 1)))
def test_mutual_information_is_not_negative_and_entropy_at_most_log_classes(values):
    parts = metrics.entropy_parts(values / values.sum(axis=-1, keepdims=True))
    assert (parts.mutual_information > -1e-12).all()
    assert (parts.predictive <= np.log(5) + 1e-12).all()


def test_auroc_equals_scikit_learn_and_counts_ties_half():
    scores = np.round(RNG.normal(size=40), 1)
    kind = RNG.random(40) < 0.4
    assert metrics.auroc(scores, kind) == pytest.approx(roc_auc_score(kind, scores))
    assert metrics.auroc([1.0, 1.0], [0, 1]) == 0.5


def test_risk_coverage_equals_a_loop_over_the_images_answered():
    loss, uncertainty = RNG.random(30), RNG.random(30)
    curve = metrics.risk_coverage(loss, uncertainty)
    for k in range(1, 31):
        answered = sorted(range(30), key=lambda n: uncertainty[n])[:k]
        assert curve.coverage[k - 1] == pytest.approx(k / 30)
        assert curve.risk[k - 1] == pytest.approx(np.mean(loss[answered]))
    assert curve.aurc == pytest.approx(curve.risk.mean())


@given(st.permutations(range(8)))
def test_risk_coverage_does_not_depend_on_the_order_of_equally_uncertain_images(order):
    loss = np.array([0, 1, 0, 1, 1, 0, 0, 1.0])
    uncertainty = np.array([0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3])
    shuffled = metrics.risk_coverage(loss[list(order)], uncertainty[list(order)])
    np.testing.assert_allclose(shuffled.risk, metrics.risk_coverage(loss, uncertainty).risk, atol=1e-12)


def test_declining_all_equally_uncertain_images_leaves_the_error_rate():
    curve = metrics.risk_coverage([1, 0, 0, 1], np.zeros(4))
    np.testing.assert_allclose(curve.risk, 0.5)


def test_standard_errors_of_mean_and_sum_are_those_of_independent_images():
    values = RNG.normal(size=60)
    mean, total = metrics.mean_with_se(values), metrics.sum_with_se(values)
    assert mean.se == pytest.approx(np.sqrt(np.sum((values - values.mean()) ** 2) / 59 / 60))
    assert (total.value, total.se) == (pytest.approx(values.sum()), pytest.approx(60 * mean.se))
    assert np.isnan(metrics.mean_with_se([1.0]).se)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[2.0, -1.0]], [0], r"must lie in \[0, 1\].*not logits"),
        ([[np.nan, 1.0]], [0], r"must lie in \[0, 1\]"),
        ([[0.4, 0.4]], [0], "must sum to 1 over the last axis, but a row is off by 0.2"),
        ([[0.5, 0.5]], [0, 1], r"labels \(N,\) are needed, got shapes \(1, 2\) and \(2,\)"),
        ([[0.5, 0.5]], [2], "whole numbers from 0 to 1, got values from 2 to 2"),
        ([[0.5, 0.5]], [0.5], "whole numbers from 0 to 1"),
        (np.zeros((0, 2)), [], r"got shape \(0, 2\)"),
    ],
)
def test_what_are_no_probabilities_or_labels_is_refused(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        metrics.nll(probabilities, labels)


def test_other_bad_input_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="At least one bin is needed, got bins=0"):
        metrics.ece([[1.0, 0.0]], [0], bins=0)
    with pytest.raises(DataError, match="both kinds present"):
        metrics.auroc([0.1, 0.2], [1, 1])
    with pytest.raises(DataError, match="got 2 and 3"):
        metrics.risk_coverage([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match="uncertainty must be a vector"):
        metrics.decline_order([0.1, np.nan])
    with pytest.raises(DataError, match=r"shape \(num_samples, N, C\)"):
        metrics.entropy_parts([[0.5, 0.5]])


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    table = metrics.reliability([[0.5, 0.5], [0.75, 0.25]], [0, 0], bins=4)
    assert table.count.tolist() == [0, 1, 1, 0]
