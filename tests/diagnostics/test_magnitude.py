"""What the size of a weight has to do with its sd: against plain computations, and against planted relations."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tests.planted import PlantedLayer, planted, two_way
from tests.synthetic import CONV_LAYERS, synthetic
from wiu_pyro import diagnostics
from wiu_pyro.errors import DataError, SchemaError

LEVELS = (0.5, 0.9, 0.95, 0.99)
SMALL = {"num_bootstrap": 30}


def layer(seed, shape=(1, 24, 30), *, power=0.0, scales=(0.3, 0.3, 0.6), **more):
    """Sd of size to the power given, times effects of output, input and weight; sizes with such effects too."""
    rng = np.random.default_rng(seed)
    size = np.exp(two_way(rng, shape, scales) - 1)
    sd = 0.3 * size**power * np.exp(0.3 * two_way(rng, shape, scales))
    return PlantedLayer(sd=sd, mean=size * rng.choice([-1, 1], size=shape), **more)


def chains(*layers):
    """One layer of several networks."""
    return PlantedLayer(
        sd=np.concatenate([one.sd for one in layers]), mean=np.concatenate([one.mean for one in layers])
    )


def single(one, **options):
    return diagnostics.magnitude(planted({"fc": one}), **(SMALL | options)).sel(layer="fc")


def test_figures_are_those_of_plain_computations():
    made = layer(0, power=-0.5)
    size, sd = np.abs(made.mean[0]).ravel(), made.sd[0].ravel()
    row = single(made)
    assert float(row["spearman"]) == pytest.approx(stats.spearmanr(size, sd).statistic, abs=1e-4)
    assert float(row["rank_agreement"]) == pytest.approx(stats.spearmanr(size, size / sd).statistic, abs=1e-4)
    for level in LEVELS[:3]:
        kept = [set(np.flatnonzero(stats.rankdata(x) > level * x.size + 0.5)) for x in (size, size / sd)]
        gone = [set(range(size.size)) - one for one in kept]
        found = row.sel(level=level)
        assert float(found["kept_in_common"]) == pytest.approx(len(kept[0] & kept[1]) / len(kept[0]))
        assert float(found["removed_in_common"]) == pytest.approx(len(gone[0] & gone[1]) / len(gone[0]))
    assert np.isnan(row["kept_in_common"].sel(level=0.99))  # 7 weights


def test_slope_is_the_median_over_all_pairs_of_weights():
    made = layer(1, (1, 6, 10), power=-0.5)
    size, sd = np.log(np.abs(made.mean[0])).ravel(), np.log(made.sd[0]).ravel()
    slopes = [(sd[i] - sd[j]) / (size[i] - size[j]) for i, j in combinations(range(60), 2)]
    assert float(single(made)["slope"]) == pytest.approx(np.median(slopes), abs=0.02)


def test_curve_holds_quantiles_of_equally_many_weights_along_the_size():
    made = layer(2, (1, 20, 30))
    order = np.argsort(np.abs(made.mean[0]).ravel()).reshape(6, 100)
    row = single(made, bins=6)
    assert row["bin_count"].values.tolist() == [100] * 6
    for name, q in {"q10": 0.1, "q50": 0.5, "q90": 0.9}.items():
        expected = np.quantile(made.sd[0].ravel()[order], q, axis=1)
        np.testing.assert_allclose(row[f"sd_to_prior_{name}"], expected, rtol=1e-4)


def test_sizes_at_the_floor_are_one_bin_and_the_others_share_the_rest():
    made = layer(3, (1, 20, 30))
    made.mean[:, :10] = 1e-30
    row = single(made, bins=6)
    assert row["bin_count"].values.tolist() == [300] + [60] * 5
    assert float(row["size"][0]) == pytest.approx(1e-3)


@pytest.mark.parametrize("power", [-0.4, 0.5])
def test_a_planted_power_law_is_found_with_its_slope(power):
    idata = planted({"power": layer(4, (1, 40, 50), power=power), "none": layer(5, (1, 40, 50))})
    table = diagnostics.magnitude(idata, num_bootstrap=100)
    row = table.sel(layer="power")
    assert float(row["slope_low"]) < power < float(row["slope_high"])
    assert abs(float(row["spearman"])) > float(row["spearman_null"])
    word = "smaller" if power < 0 else "larger"
    text = diagnostics.magnitude_statement(table)
    assert text.startswith(f"Larger weights tend to have {word} sds in 1 of the 2 layers with an interval")
    assert "No dependence of the sd on the size is shown: Spearman's correlation" in text
    assert text.index("in 'power'") < text.index("No dependence") < text.index("in 'none'")


@pytest.mark.slow
def test_networks_without_a_dependence_give_no_finding_at_the_stated_rate():
    found = 0
    for seed in range(40):
        idata = planted({"a": layer(2 * seed), "b": layer(2 * seed + 1)})
        text = diagnostics.magnitude_statement(diagnostics.magnitude(idata, **SMALL))
        found += text.startswith("Larger weights tend")
    assert found <= stats.binom.isf(0.01, 40, 0.05)


@pytest.mark.slow
def test_medians_of_unrelated_sds_stay_within_the_null_band_at_the_stated_rate():
    outside = 0
    for seed in range(40):
        row = single(layer(seed, (1, 12, 15), scales=(0.7, 0.7, 0.2)), bins=5)
        beyond = (row["sd_to_prior_q50"] < row["null_low"] * 0.9999) | (
            row["sd_to_prior_q50"] > row["null_high"] * 1.0001
        )
        outside += bool(beyond.any())
    assert outside <= stats.binom.isf(0.01, 40, 0.05)


def test_scaling_a_layer_together_with_its_prior_changes_nothing():
    made = layer(6, power=-0.5)
    scaled = PlantedLayer(sd=8 * made.sd, mean=8 * made.mean, prior_sd=8.0)
    before, after = single(made), single(scaled)
    assert before.drop_attrs().equals(after.drop_attrs())


def test_a_prior_that_varies_over_the_weights_makes_no_dependence_by_itself():
    made, prior = layer(7, (1, 30, 30)), np.geomspace(0.01, 100, 900).reshape(30, 30)
    scaled = PlantedLayer(sd=made.sd * prior, mean=made.mean * prior, prior_sd=prior)
    assert stats.spearmanr(np.abs(scaled.mean).ravel(), scaled.sd.ravel()).statistic > 0.8
    assert float(single(scaled)["spearman"]) == pytest.approx(float(single(made)["spearman"]), abs=1e-3)


def test_weights_at_a_point_estimate_are_left_out():
    made = layer(8, power=-0.5)
    sd = made.sd.copy()
    sd[:, ::3, ::2] = 0
    known = sd[0] > 0
    row = single(PlantedLayer(sd=sd, mean=made.mean))
    assert (int(row["num_weights"]), int(row["num_left_out"])) == (known.sum(), (~known).sum())
    expected = stats.spearmanr(np.abs(made.mean[0][known]), sd[0][known]).statistic
    assert float(row["spearman"]) == pytest.approx(expected, abs=1e-4)
    assert float(row["spearman_low"]) < expected < float(row["spearman_high"])


@pytest.mark.parametrize(("rows", "found"), [(slice(0, 24, 1), True), (slice(0, 19), False)])
def test_outputs_all_at_a_point_estimate_are_no_clusters(rows, found):
    made = layer(8, (1, 60, 40), power=-0.5)
    sd = np.zeros_like(made.sd)
    sd[:, rows] = made.sd[:, rows]
    row = single(PlantedLayer(sd=sd, mean=made.mean))
    assert int(row["num_clusters"]) == (24 if found else 0)
    assert np.isfinite(row["spearman_low"]) == found


def test_hardly_any_weights_with_a_posterior_have_no_interval():
    made = layer(8, (1, 60, 60))
    sd = np.where(np.eye(60, dtype=bool), made.sd, 0)
    row = single(PlantedLayer(sd=sd, mean=made.mean))
    assert (int(row["num_weights"]), int(row["num_clusters"])) == (60, 0)
    assert np.isfinite(row["spearman"])
    assert np.isnan(row["spearman_low"])


def test_a_layer_at_a_point_estimate_has_no_figures_and_is_not_spoken_of():
    made = layer(9)
    table = diagnostics.magnitude(
        planted({"fc": layer(10), "point": PlantedLayer(sd=0 * made.sd, mean=made.mean)}), **SMALL
    )
    assert np.isnan(table["spearman"].sel(layer="point"))
    assert "'point'" not in diagnostics.magnitude_statement(table)


@pytest.mark.parametrize("shape", [(1, 19, 40), (1, 40, 19), (1, 10, 30)])
def test_fewer_than_twenty_outputs_or_inputs_have_no_interval(shape):
    made = layer(11, shape, power=-0.5)
    row = single(made)
    assert np.isnan([row["spearman_low"], row["slope_high"], *row["kept_in_common_low"]]).all()
    text = diagnostics.magnitude_statement(diagnostics.magnitude(planted({"fc": made}), **SMALL))
    assert text.startswith("Without an interval (fewer than 20 outputs or inputs)")
    assert "In brackets" not in text


def test_over_five_seeds_the_interval_is_students_on_the_scale_of_fisher():
    networks = [layer(seed, (1, 12, 15), power=-0.3) for seed in range(20, 26)]
    idata = planted({"fc": chains(*networks)}, seed=list(range(6)))
    table = diagnostics.magnitude(idata, **SMALL)
    row = table.sel(layer="fc")
    z = np.arctanh(row["spearman"].values)
    low, high = np.tanh(stats.t.interval(0.95, 5, z.mean(), stats.sem(z)))
    assert (float(row["seeds_spearman_low"]), float(row["seeds_spearman_high"])) == pytest.approx((low, high))
    assert float(row["seeds_slope"]) == pytest.approx(float(row["slope"].mean()))
    assert "over 6 seeds" in diagnostics.magnitude_statement(table)


def test_four_seeds_have_no_interval_over_seeds():
    table = diagnostics.magnitude(planted({"fc": layer(12, (4, 20, 20))}, seed=[0, 1, 2, 3]), **SMALL)
    assert "seeds_spearman" not in table
    assert "within each of 4 networks" in diagnostics.magnitude_statement(table)


def test_rankings_are_one_where_the_sd_is_the_same_and_part_where_it_grows_with_the_size():
    same, grown = layer(13, (1, 50, 60)), layer(14, (1, 50, 60), power=1.0)
    same.sd[:] = 0.5
    text = diagnostics.magnitude_statement(
        diagnostics.magnitude(planted({"same": same, "grown": grown}), num_bootstrap=60)
    )
    one, part = text.index("are one: of the weights kept"), text.index("part: of the weights kept")
    assert one < text.index("100 % (100 % to 100 %) at 50 % removed in 'same'") < part
    assert part < text.index("removed in 'grown'")


def test_an_interval_that_holds_the_limit_leaves_open_whether_the_rankings_are_one():
    table = single(layer(15, (1, 30, 40))).expand_dims("layer").assign_attrs(num_seeds=1, factorised=0)
    for end, value in {"": 0.92, "_low": 0.85, "_high": 0.97}.items():
        table[f"kept_in_common{end}"] = table[f"kept_in_common{end}"] * 0 + value
    assert "Whether the two rankings are one is open: of the weights kept they have in common 92 % (85 % to 97 %)" in (
        diagnostics.magnitude_statement(table)
    )


def test_conditional_sds_are_taken_on_request_and_refused_where_there_are_none():
    made = layer(16)
    both = PlantedLayer(sd=made.sd, mean=made.mean, conditional=layer(17, power=-0.8).sd)
    row = single(both, sd="conditional")
    expected = stats.spearmanr(np.abs(made.mean).ravel(), both.conditional.ravel()).statistic
    assert float(row["spearman"]) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(SchemaError, match=r"'fc1' with sd_conditional, bias_sd_conditional.*Use sd='marginal'"):
        diagnostics.magnitude(synthetic(estimated=True).idata, sd="conditional")
    with pytest.raises(DataError, match="Unknown kind of standard deviation 'joint'"):
        diagnostics.magnitude(synthetic().idata, sd="joint")


def test_convolutions_and_scales_without_inputs_are_taken_whole():
    made = synthetic(layers=CONV_LAYERS)
    truth = made.truth["features.0"]
    row = diagnostics.magnitude(made.idata, **SMALL).sel(layer="features.0")
    assert int(row["num_weights"]) == 54
    expected = stats.spearmanr(np.abs(truth.mean[0, :54]), truth.sd[0, :54]).statistic
    assert float(row["spearman"]) == pytest.approx(expected, abs=1e-3)
    rng = np.random.default_rng(0)
    scale = PlantedLayer(sd=rng.uniform(0.1, 1, size=(1, 50)), mean=rng.normal(size=(1, 50)))
    row = single(scale)
    assert (int(row["num_weights"]), int(row["num_clusters"])) == (50, 0)
    assert np.isfinite(row["spearman"])


def test_of_a_large_layer_a_subset_of_its_units_gives_the_whole_layers_interval():
    """Twice as many outputs and inputs make the interval as much narrower, though as many weights are resampled."""
    width = {}
    for side in (160, 640):
        row = single(layer(18, (1, side, side), scales=(1.0, 1.0, 0.1)), num_bootstrap=60)
        width[side] = float(row["spearman_high"] - row["spearman_low"])
    assert 1.4 < width[160] / width[640] < 2.9  # the root of 4, with the error of 60 replicates


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(DataError, match="bins=0, num_bootstrap=200"):
        diagnostics.magnitude(synthetic().idata, bins=0)
    with pytest.raises(SchemaError, match="A table with 'spearman' and 'kept_in_common' is needed"):
        diagnostics.magnitude_statement(diagnostics.layer_uncertainty(synthetic().idata))
