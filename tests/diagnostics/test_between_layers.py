"""Differences between layers: planted ones are found, none where there is none, and each figure is checked."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import wiu_pyro as wiu
from tests.planted import PlantedLayer, planted, two_way
from tests.synthetic import CONV_LAYERS, LayerSpec, synthetic
from wiu_pyro import diagnostics, metrics, schema
from wiu_pyro.diagnostics.between_layers import RESCALING_INVARIANT, between_layers
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export.container import build
from wiu_pyro.testing import rescale_relu

WIDE = (LayerSpec("fc1", (24, 30), 0.3), LayerSpec("fc2", (20, 24), 0.5), LayerSpec("out", (10, 20), 0.8))

SMALL = (LayerSpec("fc1", (6, 8), 0.3), LayerSpec("fc2", (5, 6), 0.5), LayerSpec("out", (4, 5), 0.8))


def seeds(rng, levels, *, num=5, between=0.02, shape=(6, 8)):
    """Networks whose layers have the given mean log sd, a spread over seeds and one over weights."""
    layers = {}
    for name, level in levels.items():
        log_sd = level + between * rng.normal(size=(num, 1, 1)) + 0.1 * rng.normal(size=(num, *shape))
        layers[name] = PlantedLayer(np.exp(log_sd))
    return planted(layers)


def test_every_pair_and_metric_is_first_minus_second_layer_of_the_layer_table():
    made = synthetic(layers=SMALL, factorised=False, num_chains=3)
    out, table = between_layers(made.idata), diagnostics.layer_uncertainty(made.idata)
    assert out["pair"].values.tolist() == ["fc1 − fc2", "fc1 − out", "fc2 − out"]
    for first, second in combinations(table["layer"].values, 2):
        expected = table.sel(layer=first) - table.sel(layer=second)
        for name in out["metric"].values:
            found = float(out["difference"].sel(metric=name, pair=f"{first} − {second}"))
            assert found == pytest.approx(float(expected[name].mean()), nan_ok=True), name
    compared = {name for name, data in table.data_vars.items() if "layer" in data.dims} - {"num_weights"}
    assert set(out["metric"].values) == compared


def test_intervals_over_five_seeds_are_paired_student_intervals_with_bonferronis_correction():
    idata = synthetic(num_chains=5).idata
    out, table = between_layers(idata), diagnostics.layer_uncertainty(idata)
    for name in ("contraction", "snr_q50", "kl_per_weight"):
        for first, second in combinations(table["layer"].values, 2):
            test = stats.ttest_rel(table[name].sel(layer=first), table[name].sel(layer=second))
            expected = test.confidence_interval(1 - 0.05 / 3)
            row = out.sel(metric=name, pair=f"{first} − {second}")
            assert (float(row["seeds_low"]), float(row["seeds_high"])) == pytest.approx((expected.low, expected.high))
    assert out.attrs["interval"] == "seeds"
    assert "Bonferroni" in out.attrs["interval_method"]
    assert "within_low" not in out


def test_a_layer_planted_apart_is_found_against_every_other_and_nothing_else():
    rng = np.random.default_rng(1)
    out = between_layers(seeds(rng, {"a": -1.0, "b": -1.0, "c": -0.7, "d": -1.0}))
    row = out.sel(metric="contraction")
    found = row["pair"].values[((row["seeds_low"] > 0) | (row["seeds_high"] < 0)).values].tolist()
    assert found == ["a − c", "b − c", "c − d"]
    # log sd Normal(m, 0.1² + 0.02²): mean of 1 - sd² is 1 - exp(2 m + 2 * 0.0104)
    truth = np.exp(2 * -0.7 + 0.0208) - np.exp(-2 + 0.0208)
    assert float(row["seeds_low"].sel(pair="a − c")) < truth < float(row["seeds_high"].sel(pair="a − c"))


def test_networks_whose_layers_do_not_differ_give_no_finding_at_the_stated_rate():
    repeats = 150
    names = ["contraction", "snr_q50", "kl_per_weight", "sd_q95"]
    equal = seeds(np.random.default_rng(1), {"a": -1.0, "b": -1.0, "c": -1.0}, num=5 * repeats, shape=(3, 4))
    table = diagnostics.layer_uncertainty(equal)
    value = np.stack([table[name].values for name in names], axis=1).reshape(repeats, 5, len(names), 3)
    first, second = np.triu_indices(3, 1)
    found = np.zeros((repeats, len(names)))
    for repeat, metric in np.ndindex(found.shape):  # five networks each, as the test above says the diagnostic does
        row = metrics.student_intervals(value[repeat, :, metric][:, first] - value[repeat, :, metric][:, second])
        found[repeat, metric] = np.any((row.low > 0) | (row.high < 0))
    assert (found.mean(axis=0) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)).all()


def test_fewer_than_five_seeds_have_no_interval_over_seeds_and_say_so():
    out = between_layers(synthetic(layers=WIDE, num_chains=4).idata)
    assert out["seeds_low"].isnull().all()
    assert out.attrs["interval"] == "within one network"
    assert "4 of the 5 seeds" in out.attrs["interval_method"]
    assert out["within_low"].sizes["chain"] == 4
    assert out["within_low"].sel(metric="contraction", pair="fc1 − fc2").notnull().all()


@pytest.mark.parametrize(("attrs", "expected"), [({"guide": "MCMC"}, 1), ({"seed": [0, 1, 1, 2, 3]}, 4), ({}, 5)])
def test_chains_of_mcmc_and_seeds_that_stand_twice_are_no_further_networks(attrs, expected):
    rng = np.random.default_rng(2)
    idata = planted({name: PlantedLayer(np.exp(rng.normal(-1, 0.1, size=(5, 4, 4)))) for name in "ab"}, **attrs)
    out = between_layers(idata)
    assert out.attrs["num_seeds"] == expected
    assert bool(out["seeds_low"].notnull().any()) == (expected == 5)


def test_a_seed_that_stands_twice_is_refused_where_it_would_narrow_the_intervals():
    rng = np.random.default_rng(2)
    layers = {name: PlantedLayer(np.exp(rng.normal(-1, 0.1, size=(6, 4, 4)))) for name in "ab"}
    with pytest.raises(DataError, match=r"of 6 networks seed 3 stands more than once\. Give each seed once"):
        between_layers(planted(layers, seed=[0, 1, 2, 3, 3, 4]))


def test_pairs_whose_intervals_hold_zero_are_not_said_to_be_alike():
    rng = np.random.default_rng(3)
    layers = {name: PlantedLayer(np.exp(rng.normal(-1, 0.3, size=(1, 25, 30)))) for name in "abc"}
    two = {name: layers[name] for name in "ab"}
    said = diagnostics.between_statement(between_layers(planted(two)))
    assert "the one pair of layers cannot be told apart in contraction" in said
    said = diagnostics.between_statement(between_layers(planted(layers)))
    assert "none of the 3 pairs of layers can be told apart in contraction" in said


def test_layers_of_few_clusters_or_without_a_table_of_weights_have_no_interval_within_one_network():
    out = between_layers(synthetic(layers=WIDE).idata)
    reasons = out["within_reason"].sel(metric="contraction")
    assert reasons.values.tolist() == ["", "", "10 outputs and 20 inputs: fewer than 20 clusters"]
    assert out["within_low"].sel(metric="contraction").notnull().values.tolist() == [True, False, False]
    conv = between_layers(synthetic(layers=CONV_LAYERS).idata)
    assert "6 outputs and 1 inputs" in str(conv["within_reason"].sel(metric="snr_q50", layer="features.0").item())
    scale = PlantedLayer(np.full((1, 30), 0.5))
    flat = between_layers(planted({"norm": scale, "fc": PlantedLayer(np.full((1, 20, 20), 0.4))}))
    assert "no table of outputs by inputs" in str(flat["within_reason"].sel(metric="snr_q50", layer="norm").item())


def test_kl_and_effective_parameters_of_correlated_weights_are_compared_over_seeds_alone():
    out = between_layers(synthetic(layers=WIDE, factorised=False).idata)
    for name in ("kl", "kl_per_weight", "effective_parameters"):
        assert "does not split by unit" in str(out["within_reason"].sel(metric=name, layer="fc1").item())
        assert out["within_low"].sel(metric=name).isnull().all()
    factorised = between_layers(synthetic(layers=WIDE).idata)
    assert factorised["within_low"].sel(metric="kl", pair="fc1 − fc2").notnull()
    five = between_layers(synthetic(layers=SMALL, factorised=False, num_chains=5).idata)
    assert five["seeds_low"].sel(metric="kl").notnull().all()


def test_a_kl_that_is_not_the_sum_over_its_weights_is_not_resampled():
    groups = {name: schema.dataset(i, name) for i in [synthetic(layers=WIDE).idata] for name in schema.groups(i)}
    groups["layers"]["kl"].values[:] *= 1.5  # as against a prior that is not Normal
    out = between_layers(build(groups))
    assert "not known how it splits" in str(out["within_reason"].sel(metric="kl", layer="fc1").item())


def resampled_by_hand(layer, rng, num):
    """Figures of layers put together anew, unit by unit, from resampled outputs and inputs."""
    sd, mean, bias = layer.sd[0], layer.mean[0], layer.bias_sd[0]
    rows = []
    for _ in range(num):
        out, inn = rng.integers(sd.shape[0], size=sd.shape[0]), rng.integers(sd.shape[1], size=sd.shape[1])
        taken, centre = sd[np.ix_(out, inn)], mean[np.ix_(out, inn)]
        all_sd = np.concatenate([taken.ravel(), bias[out]])
        snr = np.concatenate([(np.abs(centre) / taken).ravel(), np.zeros(len(out))])
        kl = 0.5 * (centre**2 + taken**2 - 1 - 2 * np.log(taken))
        bias_kl = 0.5 * (bias[out] ** 2 - 1 - 2 * np.log(bias[out]))
        rows.append((np.mean(1 - all_sd**2), np.quantile(all_sd, 0.05), np.median(snr), kl.sum() + bias_kl.sum()))
    return np.array(rows)


def test_the_bootstrap_spreads_as_layers_put_together_from_resampled_units_do():
    rng = np.random.default_rng(3)
    layers = {
        name: PlantedLayer(
            sd=np.exp(-1 + two_way(rng, (1, 25, 40), (0.2, 0.3, 0.2))),
            mean=rng.normal(size=(1, 25, 40)),
            bias_sd=np.exp(-1 + 0.2 * rng.normal(size=(1, 25))),
        )
        for name in "ab"
    }
    out = between_layers(planted(layers), num_bootstrap=2_000)
    drawn = {name: resampled_by_hand(layer, rng, 600) for name, layer in layers.items()}
    expected = np.std(drawn["a"] - drawn["b"], axis=0)
    names = ["contraction", "sd_q05", "snr_q50", "kl"]
    width = (out["within_high"] - out["within_low"]).sel(pair="a − b", metric=names).values
    reach = stats.t.isf(0.025, 24)  # one pair: the largest studentised deviation is that pair's own
    ratio = width / 2 / reach / expected
    np.testing.assert_allclose(ratio[[0, 2, 3]], 1, atol=0.12)  # bootstrap noise on both sides, 3 % each
    assert 0.9 < ratio[1] < 2  # an outer quantile: wide rather than narrow


def test_effect_sizes_equal_the_count_over_all_pairs_of_weights_and_leave_out_fixed_ones():
    rng = np.random.default_rng(4)
    sd = {name: np.exp(rng.normal(-1, 0.3, size=(1, 6, 5))) for name in "ab"}
    sd["a"][0, :2] = 0  # two units fixed at a point estimate
    mean = {name: rng.normal(size=(1, 6, 5)) for name in "ab"}
    mean["b"][0, 0, 0] = 1e-30
    out = between_layers(planted({name: PlantedLayer(sd[name], mean[name]) for name in "ab"}))
    free = {name: sd[name].astype("f4") > 0 for name in "ab"}
    contraction = {name: 1 - sd[name][free[name]] ** 2 for name in "ab"}
    snr = {name: np.log(np.maximum(np.abs(mean[name][free[name]]) / sd[name][free[name]], 1e-3)) for name in "ab"}
    for quantity, values in {"contraction": contraction, "log_snr": snr}.items():
        row = out.sel(quantity=quantity, pair="a − b")
        assert float(row["cliffs_delta"]) == pytest.approx(np.sign(values["a"][:, None] - values["b"]).mean())
        assert float(row["wasserstein"]) == pytest.approx(
            stats.wasserstein_distance(values["a"], values["b"]), rel=1e-4
        )


def test_effect_sizes_over_five_seeds_have_intervals_too():
    out = between_layers(synthetic(num_chains=5).idata)
    each = out["cliffs_delta"].sel(quantity="log_snr").values
    expected = metrics.student_intervals(each)
    np.testing.assert_allclose(out["cliffs_delta_low"].sel(quantity="log_snr"), expected.low)
    assert (out["wasserstein_low"] <= out["wasserstein"].mean("chain")).all()


def test_inequality_is_that_of_the_layers_kl_and_effective_parameters():
    made = synthetic(layers=SMALL, factorised=False, num_chains=5)
    out, table = between_layers(made.idata), diagnostics.layer_uncertainty(made.idata)
    rows = {
        "kl": table["kl"],
        "effective": table["effective_parameters"],
        "kl_per_weight": table["kl"] / table["num_weights"],
        "effective_per_weight": table["effective_parameters"] / table["num_weights"],
    }
    for name, values in rows.items():
        expected = [metrics.gini(row) for row in values.values]
        np.testing.assert_allclose(out["gini"].sel(share_of=name), expected)
        interval = metrics.student_intervals(np.array(expected)[:, None])
        assert float(out["gini_low"].sel(share_of=name)) == pytest.approx(max(interval.low[0], 0))
        assert float(out["evenness"].sel(share_of=name, chain=0)) == pytest.approx(metrics.evenness(values.values[0]))


def test_a_layer_at_a_point_estimate_has_no_difference_and_does_not_count_in_the_inequality():
    layers = {name: PlantedLayer(np.full((1, 20, 20), level)) for name, level in {"a": 0.3, "b": 0.6}.items()}
    layers["c"] = PlantedLayer(np.zeros((1, 20, 20)), structure="point", kl=np.zeros(1))
    out = between_layers(planted(layers))
    assert out["difference"].sel(metric="contraction").notnull().values.tolist() == [True, False, False]
    assert out["cliffs_delta"].sel(quantity="contraction").notnull().values.tolist() == [True, False, False]
    assert float(out["gini"].sel(share_of="effective")) == pytest.approx(metrics.gini([1 - 0.09, 1 - 0.36]), rel=1e-5)
    assert "fixed at a point estimate" in str(out["within_reason"].sel(metric="snr_q50", layer="c").item())


def test_one_layer_alone_cannot_be_compared():
    with pytest.raises(SchemaError, match="At least two layers are needed to compare, but the file holds 'only' alone"):
        between_layers(synthetic(layers=(LayerSpec("only", (4, 3), 0.5),), dead_inputs=()).idata)


def test_statement_over_seeds_names_the_pairs_found_with_their_interval():
    out = between_layers(seeds(np.random.default_rng(1), {"a": -1.0, "b": -1.0, "c": -0.7, "d": -1.0}))
    text = diagnostics.between_statement(out)
    every = out.sel(metric="contraction")
    row = every.isel(pair=int(np.argmax(np.abs(every["difference"].values))))
    assert text.startswith(
        "Over 5 seeds 3 of the 6 pairs of layers differ in contraction (95 % intervals, simultaneous"
    )
    assert f"above 'c' by {abs(float(row['difference'])):.3g} (" in text
    ends = sorted(abs(float(row[end])) for end in ("seeds_low", "seeds_high"))
    assert f"({ends[0]:.3g} to {ends[1]:.3g})" in text
    assert "Cliff's delta" in text
    assert "not converged" not in text


def test_statement_says_when_nothing_was_found_and_when_the_fit_had_not_converged():
    equal = seeds(np.random.default_rng(5), {"a": -1.0, "b": -1.0})
    text = diagnostics.between_statement(between_layers(equal))
    assert text.startswith("Over 5 seeds no two layers can be told apart by contraction: every interval (95 %")
    unsettled = diagnostics.between_statement(between_layers(synthetic(converged="no").idata))
    assert "The fit had not converged (-ELBO changed by 8.00%" in unsettled


def test_of_several_runs_that_had_not_converged_the_first_ones_figure_is_given():
    details = "; ".join(f"-ELBO changed by {change} % over the last tenth of the epochs." for change in (6, 7, 5))
    attrs = {"converged": "no", "convergence_detail": details, "seed": [0, 1, 2]}
    note = diagnostics.convergence_note(attrs)
    assert note == "not converged (the first of 3 runs: -ELBO changed by 6 % over the last tenth of the epochs)"


def test_statement_of_one_network_is_labelled_so_and_says_which_layers_have_no_interval():
    text = diagnostics.between_statement(between_layers(synthetic(layers=WIDE).idata))
    assert text.startswith("Within this one network the one pair of layers that has an interval differs in contraction")
    assert "two-way bootstrap over outputs and inputs" in text
    assert "No interval for 'out' (10 outputs and 20 inputs: fewer than 20 clusters)." in text
    assert "another training would show the same is not known: that takes 5 seeds" in text
    none = diagnostics.between_statement(between_layers(synthetic().idata))
    assert none.startswith(
        "Within this one network no pair of layers has an interval in contraction: 'fc1' (16 outputs"
    )


def test_statement_warns_of_a_metric_in_the_units_of_the_weights_and_refuses_an_unknown_one():
    out = between_layers(synthetic().idata)
    assert "take this for a statement about units" in diagnostics.between_statement(out, "sd_q50")
    assert "about units" not in diagnostics.between_statement(out, "snr_q50")
    with pytest.raises(DataError, match="Unknown metric 'contractions'. Did you mean 'contraction'"):
        diagnostics.between_statement(out, "contractions")
    with pytest.raises(SchemaError, match="A table with 'difference' over 'pair' is needed"):
        diagnostics.between_statement(diagnostics.layer_uncertainty(synthetic().idata))


@pytest.mark.training
@pytest.mark.parametrize("guide", ["AutoKFACLaplace", "AutoDiagonalLaplace"])
def test_metrics_marked_invariant_survive_a_rescaling_of_relu_layers_and_the_others_do_not(guide):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    model = wiu.nn.BayesianNetwork(net, num_data=20)
    data = torch.randn(20, 6), torch.arange(20) % 3
    tables = []
    for one in (model, rescale_relu(model, "0", "2", factor=10.0)):
        fit = wiu.fit(one, getattr(wiu.guides, guide)(one), data, epochs=0)
        tables.append(between_layers(wiu.to_inference_data(fit, num_samples=2)))
    before, after = tables
    for name in before["metric"].values:
        one, other = (table["value"].sel(metric=name).values for table in (before, after))
        same = np.allclose(one, other, rtol=2e-3, equal_nan=True)
        assert same == bool(before["rescaling_invariant"].sel(metric=name)), name
    assert set(RESCALING_INVARIANT) <= set(diagnostics.layer_uncertainty.__globals__["DESCRIPTIONS"])
    np.testing.assert_allclose(before["cliffs_delta"], after["cliffs_delta"], atol=0.02)
    np.testing.assert_allclose(before["gini"], after["gini"], rtol=2e-3)
