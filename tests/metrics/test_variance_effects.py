"""Effects of inputs on a variance, against functions whose effects are known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from wiu_pyro import metrics
from wiu_pyro.errors import DataError

NUM = 3


def mixtures(rng: np.random.Generator, function, num: int = NUM) -> np.ndarray:
    one, other = rng.normal(size=(2, num))
    numbers = np.arange(2**num)
    return np.array([function(np.where(number >> np.arange(num) & 1, other, one)) for number in numbers])[:, None]


def found_by_draws(function, *, num_draws: int = 2000, num: int = NUM):
    rng = np.random.default_rng(0)
    costs = [metrics.pick_freeze_costs(mixtures(rng, function, num)) for _ in range(num_draws)]
    return metrics.variance_shares([metrics.subset_effects(one) for one in costs])


def test_an_additive_function_has_one_number_three_times():
    scales = np.array([1.0, 2.0, 3.0])
    shares, errors = found_by_draws(lambda w: w @ scales)
    for name, found in shares.items():
        np.testing.assert_array_less(np.abs(found - scales**2 / 14), 4 * errors[name] + 1e-12)
        np.testing.assert_allclose(found, shares["shapley"], atol=1e-12)


def test_a_product_shares_its_interaction_between_the_factors():
    """Of (m₁ + s₁u)(m₂ + s₂v) the variance is m₁²s₂² + m₂²s₁² + s₁²s₂²."""
    shares, errors = found_by_draws(lambda w: (2 + w[0]) * (1 + 0.5 * w[1]), num=2)
    alone, both = np.array([1.0, 4 * 0.25]), 0.25
    truth = {"first_order": alone, "total": alone + both, "shapley": alone + both / 2}
    for name, expected in truth.items():
        np.testing.assert_array_less(np.abs(shares[name] - expected / 2.25), 4 * errors[name])
    assert shares["shapley"].sum() == pytest.approx(1, abs=1e-12)


def test_standard_errors_are_the_spread_over_repetitions():
    rng = np.random.default_rng(1)
    runs = []
    for _ in range(200):
        costs = [metrics.pick_freeze_costs(mixtures(rng, lambda w: w[0] * w[1] + w[2])) for _ in range(40)]
        runs.append(metrics.variance_shares([metrics.subset_effects(one) for one in costs]))
    spread = np.std([shares["total"] for shares, _ in runs], axis=0, ddof=1)
    error = np.mean([errors["total"] for _, errors in runs], axis=0)
    np.testing.assert_allclose(error, spread, rtol=0.25)


def test_shapley_effects_are_the_mean_over_all_orders_and_paths_agree():
    costs = np.random.default_rng(2).uniform(size=16)
    costs[0] = 0
    orders = list(itertools.permutations(range(4)))
    paths = [metrics.path_effects(dict(enumerate(costs.tolist())), order) for order in orders]
    exact = metrics.subset_effects(costs)
    np.testing.assert_allclose(np.mean([path.shapley for path in paths], axis=0), exact.shapley, atol=1e-12)
    for name in ("first_order", "total"):
        np.testing.assert_allclose(getattr(paths[0], name), getattr(exact, name), atol=1e-12)
    by_orders = [
        np.mean([costs[sum(1 << j for j in order[: order.index(i) + 1])]
                 - costs[sum(1 << j for j in order[: order.index(i)])] for order in orders])
        for i in range(4)
    ]  # fmt: skip
    np.testing.assert_allclose(exact.shapley, by_orders, atol=1e-12)


def test_a_function_that_does_not_vary_has_no_shares():
    shares, _ = metrics.variance_shares([metrics.subset_effects(np.zeros(4))])
    assert all(np.isnan(found).all() for found in shares.values())
    with pytest.raises(DataError, match="all 2 \\*\\* inputs sets are needed, got 3"):
        metrics.pick_freeze_costs(np.zeros((3, 1)))


def test_placements_average_to_the_auroc_and_give_its_standard_error():
    rng = np.random.default_rng(3)
    scores, kind = np.concatenate([rng.normal(size=80), rng.normal(1, 1, size=60)]).round(1), np.arange(140) >= 80
    above, below = metrics.auroc_placements(scores, kind)
    assert above.mean() == pytest.approx(metrics.auroc(scores, kind), abs=1e-12)
    assert below.mean() == pytest.approx(metrics.auroc(scores, kind), abs=1e-12)
    drawn = [np.concatenate([rng.choice(scores[:80], 80), rng.choice(scores[80:], 60)]) for _ in range(400)]
    spread = np.std([metrics.auroc(one, kind) for one in drawn], ddof=1)
    assert math.sqrt(above.var(ddof=1) / 60 + below.var(ddof=1) / 80) == pytest.approx(spread, rel=0.15)
    with pytest.raises(DataError, match="both kinds present"):
        metrics.auroc_placements(scores, np.ones(140, bool))


def test_resampled_ece_is_the_ece_of_the_repeated_images():
    rng = np.random.default_rng(4)
    p, labels = rng.dirichlet(np.ones(3), size=50), rng.integers(3, size=50)
    counts = metrics.pigeonhole_counts(50, 4, rng=rng)
    found = metrics.ece_resampled(p, labels, counts)
    for place in range(4):
        index = np.repeat(np.arange(50), counts[:, place].astype(int))
        assert found[place] == pytest.approx(metrics.ece(p[index], labels[index]), rel=1e-5)
