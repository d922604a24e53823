"""Along what a layer's weights differ: planted structure is found with its share, dead units by name."""

import numpy as np
import pytest
import torch
from scipy import stats

import wiu_pyro as wiu
from tests.planted import PlantedLayer, planted, two_way
from tests.synthetic import CONV_LAYERS, LayerSpec, synthetic
from wiu_pyro import diagnostics, metrics, schema
from wiu_pyro.diagnostics.share_resampling import share_intervals
from wiu_pyro.diagnostics.within_layer import within_layer
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.testing import small_classifier

WIDE = (LayerSpec("fc1", (24, 30), 0.3), LayerSpec("out", (10, 24), 0.6))

MEAN = " or a mean 0.14 prior sds from the prior's"


def layer_of(log_sd, **options):
    return planted({"fc": PlantedLayer(np.exp(log_sd), **options)})


def test_shares_are_the_sums_of_squares_of_log_sd_and_log_signal_to_noise():
    made = synthetic(factorised=False, layers=CONV_LAYERS)
    out = within_layer(made.idata)
    for name, truth in made.truth.items():
        size, shape = int(np.prod(truth.spec.shape)), (*truth.spec.shape[:2], -1)
        mean, sd, conditional = (
            values[0, :size].reshape(shape) for values in (truth.mean, truth.sd, truth.sd_conditional)
        )
        prior = truth.prior_sd[:size].reshape(shape)
        values = {
            "log_sd_to_prior": np.log(sd / prior),
            "log_snr": np.log(np.maximum(np.abs(mean) / sd, 1e-3)),
            "log_conditional_sd_to_prior": np.log(conditional / prior),
        }
        for quantity, table in values.items():
            row = out.sel(layer=name, quantity=quantity)
            total = np.sum((table - table.mean()) ** 2)
            means = [table.mean(axis=axes) - table.mean() for axes in ((1, 2), (0, 2), (0, 1))]
            expected = [table.size / m.size * np.sum(m**2) / total for m in means]
            np.testing.assert_allclose(row["share"], [*expected, 1 - sum(expected)], rtol=1e-3, atol=1e-5)
            assert float(row["spread"]) == pytest.approx(table.std(), rel=1e-3)


@pytest.mark.parametrize(("part", "scales"), [("output", (1, 0, 0.2)), ("input", (0, 1, 0.2)), ("rest", (0, 0, 1))])
def test_structure_planted_along_one_side_is_found_there(part, scales):
    out = within_layer(layer_of(two_way(np.random.default_rng(0), (1, 25, 40), scales) - 2))
    share = out["share"].sel(layer="fc", quantity="log_sd_to_prior")
    assert str(share["part"].values[np.argmax(share.values)]) == part
    assert float(share.sel(part=part)) > 0.9
    assert float(share.sel(part="position")) == 0


def test_structure_planted_along_kernel_positions_is_found_there():
    rng = np.random.default_rng(1)
    log_sd = -2 + rng.normal(size=(1, 1, 1, 3, 3)) + 0.1 * rng.normal(size=(1, 6, 4, 3, 3))
    out = within_layer(layer_of(log_sd))
    assert float(out["share"].sel(layer="fc", quantity="log_sd_to_prior", part="position")) > 0.9


def test_share_by_chance_is_what_shuffled_weights_have_on_average():
    rng = np.random.default_rng(2)
    tables = [rng.normal(size=(6, 4, 3)) for _ in range(600)]
    shares = np.array([metrics.crossed_shares(table) for table in tables])
    out = within_layer(layer_of(rng.normal(size=(1, 6, 4, 3, 1))))
    error = shares.std(axis=0) / np.sqrt(600)
    assert (np.abs(out["chance_share"].sel(layer="fc").values - shares.mean(axis=0)) < 4 * error).all()


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (0.1, 0.3, 1.0)])
def test_intervals_within_a_network_hold_the_share_its_units_are_drawn_with(scales):
    rng, repeats = np.random.default_rng(3), 120
    truth = np.square([scales[0], scales[1], 0, scales[2]]) / np.sum(np.square(scales))
    held = np.zeros(4)
    for repeat in range(repeats):
        table = two_way(rng, (1, 25, 40), scales)[0][:, :, None].astype("f4")
        low, high = share_intervals(table, level=0.95, num_bootstrap=200, seed=repeat)
        held += (low <= truth) & (truth <= high)
    assert (held / repeats > 0.88).all()  # 0.95 within three standard errors, and one percent for 25 units only


def test_intervals_are_over_seeds_from_five_networks_on_and_within_them_before():
    rng = np.random.default_rng(4)
    log_sd = two_way(rng, (5, 20, 24), (0.5, 1.0, 0.5))
    out = within_layer(layer_of(log_sd))
    expected = metrics.student_intervals(
        out["share"].sel(layer="fc", quantity="log_sd_to_prior").values, simultaneous=False
    )
    row = out.sel(layer="fc", quantity="log_sd_to_prior")
    assert out.attrs["interval"] == "seeds"
    np.testing.assert_allclose(row["share_low"], np.clip(expected.low, 0, 1))
    few = within_layer(layer_of(log_sd[:2]))
    assert few.attrs["interval"] == "within one network"
    assert few["share_low"].sel(quantity="log_sd_to_prior").sizes == {"chain": 2, "layer": 1, "part": 4}
    assert few["share_low"].sel(quantity="log_sd_to_prior").notnull().all()


def test_layers_of_few_clusters_have_shares_but_no_interval_within_a_network():
    out = within_layer(synthetic(layers=WIDE).idata)
    assert out["interval_reason"].values.tolist() == ["", "10 outputs and 24 inputs: fewer than 20 clusters"]
    assert out["share"].notnull().all()
    assert out["share_low"].sel(layer="out").isnull().all()
    assert out["share_low"].sel(layer="fc1", quantity="log_sd_to_prior").notnull().all()


def dead_layer(rng, **dead):
    """Contractions between 0.3 and 0.6, but the prior's sd, within 0.5 %, and mean at the units named."""
    sd = np.sqrt(1 - rng.uniform(0.3, 0.6, size=(1, 12, 9)))
    bias = np.sqrt(1 - rng.uniform(0.3, 0.6, size=(1, 12)))
    near = rng.uniform(0.995, 1.005, size=(1, 12, 9))
    mean = np.full_like(sd, 0.3)
    for unit in dead.get("outputs", ()):
        sd[0, unit], bias[0, unit], mean[0, unit] = near[0, unit], 1.0, 0.01
    for unit in dead.get("inputs", ()):
        sd[0, :, unit], mean[0, :, unit] = near[0, :, unit], 0.01
    return PlantedLayer(sd, mean, bias_sd=bias)


def test_dead_units_are_found_and_named_and_no_other():
    rng = np.random.default_rng(5)
    layers = {"a": dead_layer(rng, outputs=(3, 11)), "b": dead_layer(rng, inputs=(0,)), "c": dead_layer(rng)}
    out = within_layer(planted(layers))
    assert out["dead_outputs"].values.tolist() == ["3, 11", "", ""]
    assert out["dead_inputs"].values.tolist() == ["", "0", ""]
    assert out["num_dead_outputs"].values.tolist() == [2, 0, 0]
    assert out["num_dead_inputs"].values.tolist() == [0, 1, 0]


def test_a_unit_whose_bias_the_data_know_or_with_one_such_weight_is_not_dead():
    layer = dead_layer(np.random.default_rng(6), outputs=(2, 5, 7))
    layer.bias_sd[0, 2] = 0.5
    layer.sd[0, 5, 4] = 0.97
    out = within_layer(planted({"fc": layer}))
    assert out["dead_outputs"].values.tolist() == ["7"]
    assert within_layer(planted({"fc": layer}), tolerance=0.06)["dead_outputs"].values.tolist() == ["5, 7"]


def test_a_unit_whose_mean_is_away_from_the_prior_s_is_not_dead():
    layer = dead_layer(np.random.default_rng(6), outputs=(2, 5))
    layer.mean[0, 5, 4] = 0.15  # prior sds; 0.14 is the limit
    assert within_layer(planted({"fc": layer}))["dead_outputs"].values.tolist() == ["2"]
    assert within_layer(planted({"fc": layer}), tolerance=0.03)["dead_outputs"].values.tolist() == ["2, 5"]


def test_units_of_fixed_weights_are_not_dead_and_are_left_out_of_the_shares():
    rng = np.random.default_rng(7)
    layer = dead_layer(rng, outputs=(4,))
    whole = within_layer(planted({"fc": layer}))
    fixed = np.concatenate([layer.sd, np.zeros((1, 3, 9))], axis=1)
    bias = np.concatenate([layer.bias_sd, np.zeros((1, 3)) + 1e-9], axis=1) * (np.arange(15) < 12)
    mean = np.concatenate([layer.mean, np.zeros((1, 3, 9))], axis=1)
    added = within_layer(planted({"fc": PlantedLayer(fixed, mean, bias_sd=bias, kl=np.ones(1))}))
    assert added["dead_outputs"].values.tolist() == ["4"]
    np.testing.assert_allclose(added["share"], whole["share"], rtol=1e-6)
    gaps = np.where(rng.uniform(size=layer.sd.shape) < 0.2, 0, layer.sd)
    scattered = within_layer(planted({"fc": PlantedLayer(gaps), "whole": layer}))
    assert scattered["share"].sel(layer="fc").isnull().all()
    assert str(scattered["share_reason"].sel(layer="fc").item()) == "some of its weights are fixed at a point estimate"


def test_dead_units_are_not_looked_for_in_moments_estimated_from_draws():
    out = within_layer(synthetic(estimated=True).idata)
    assert out["num_dead_outputs"].isnull().all()
    assert "too noisy" in diagnostics.within_statement(out)


def test_weights_that_are_all_alike_have_no_shares():
    out = within_layer(
        planted({"flat": PlantedLayer(np.full((1, 4, 5), 0.4)), "fc": dead_layer(np.random.default_rng(8))})
    )
    assert out["share"].sel(layer="flat").isnull().all()
    assert float(out["spread"].sel(layer="flat", quantity="log_sd_to_prior")) == pytest.approx(0, abs=1e-6)


def with_spectra(idata, layer, inputs, outputs, *, structure="kfac"):
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    inputs, outputs = np.atleast_2d(inputs), np.atleast_2d(outputs)
    outputs = outputs * inputs.mean(1, keepdims=True) / outputs.mean(1, keepdims=True)
    variables = {
        "input_eigenvalues": (("chain", f"{layer}_input_direction"), inputs.astype("f4")),
        "grad_eigenvalues": (("chain", f"{layer}_grad_direction"), outputs.astype("f4")),
    }
    groups[f"moments_{layer}"] = groups[f"moments_{layer}"].assign(variables)
    groups["layers"] = groups["layers"].assign(structure=("layer", [structure] * groups["layers"].sizes["layer"]))
    return wiu.export.container.build(groups)


@pytest.mark.parametrize("side", ["input", "output"])
def test_the_side_whose_factor_varies_carries_the_differences(side):
    flat, steep = np.full(12, 3.0), np.geomspace(1e-3, 1e3, 9)
    inputs, outputs = (steep, flat) if side == "input" else (flat, steep)
    idata = layer_of(np.random.default_rng(9).normal(-1, 0.1, size=(1, 6, 5)))
    out = within_layer(with_spectra(idata, "fc", inputs, outputs)).sel(layer="fc")
    assert float(out["carried"].sel(carrier=side)) == pytest.approx(1)
    assert float(out["participation_ratio"].sel(side=side)) == pytest.approx(
        steep.sum() ** 2 / (steep**2).sum(), rel=1e-4
    )
    other = "output" if side == "input" else "input"
    assert float(out["participation_ratio"].sel(side=other)) == pytest.approx(12)
    assert out["num_directions"].sel(side=[side, other]).values.tolist() == [9, 12]
    assert (np.diff(out["spectrum"].sel(side=side)) <= 0).all()


@pytest.mark.training
def test_what_the_factors_carry_is_the_analysis_of_variance_over_the_posteriors_own_eigendirections():
    model, data = small_classifier()
    fit = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), data, epochs=0)
    out = within_layer(wiu.to_inference_data(fit, num_samples=2))
    block = fit.guide.blocks[0].precision
    log_variance = torch.log(block.eigenvalues.reciprocal())[0].numpy()  # (out, in), relative to the prior
    shares = metrics.crossed_shares(log_variance.T)
    np.testing.assert_allclose(out["carried"].sel(layer=fit.guide.blocks[0].layers[0]), shares, rtol=1e-3)


def test_eigenvalues_measured_in_a_basis_have_spectra_but_nothing_said_of_the_sides():
    idata = layer_of(np.random.default_rng(10).normal(-1, 0.1, size=(1, 6, 5)))
    out = within_layer(with_spectra(idata, "fc", np.arange(1.0, 6), np.arange(1.0, 7), structure="ekfac"))
    assert out["carried"].isnull().all()
    assert out["spectrum"].notnull().all()


def test_statement_gives_shares_intervals_sides_and_dead_units():
    rng = np.random.default_rng(11)
    log_sd = np.minimum(two_way(rng, (1, 25, 40), (0.2, 1, 0.2)) - 1, -0.05)
    log_sd[0, 6] = 0
    mean = np.where(log_sd == 0, 0.01, 0.3)
    out = within_layer(with_spectra(layer_of(log_sd, mean=mean), "fc", np.geomspace(1e-2, 1e2, 9), np.full(4, 2.0)))
    text = diagnostics.within_statement(out)
    row = out.sel(layer="fc", quantity="log_sd_to_prior")
    share, low, high = (float(row[name].sel(part="input")) for name in ("share", "share_low", "share_high"))
    opening = "The largest part of the spread of log sd over a layer's weights lies between inputs in 1 of 1 layers."
    assert text.startswith(opening)
    # 24 and 39 of the 999 degrees of freedom
    assert f"'fc': {100 * share:.0f} % between inputs ({100 * low:.0f} % to {100 * high:.0f} %; 4 % by chance)" in text
    assert "2 % by chance), " in text
    assert "two-way bootstrap over outputs and inputs" in text
    assert "'fc' 100 % input side, 0 % output side, the rest both together; curvature lies in" in text
    assert MEAN.join(("Dead, without a weight beyond a contraction of 0.02", ": 1 output (6) of 'fc'")) in text
    none = diagnostics.within_statement(within_layer(planted({"fc": dead_layer(rng)})))
    assert "No unit is dead" in none
    assert "fewer than 20 clusters" in none


@pytest.mark.parametrize(("scales", "found"), [((0.5, 0.2, 0.2), "output"), ((0.5, 0.5, 0.2), "")])
def test_the_largest_part_is_named_where_paired_intervals_over_seeds_tell_it_from_all_others(scales, found):
    rng = np.random.default_rng(21)
    out = within_layer(layer_of(two_way(rng, (5, 20, 20), scales) - 2))
    share = out["share"].sel(layer="fc", quantity="log_sd_to_prior").transpose("chain", "part").values
    beside = stats.t.isf(0.025 / 2, 4) / np.sqrt(5)  # two others: a single kernel position has no part
    gaps = share[:, [0]] - share[:, [1, 3]]
    assert (gaps.mean(0) > beside * gaps.std(0, ddof=1)).all() == bool(found)
    text = diagnostics.within_statement(out)
    words = "lies between outputs in 1 of 1 layers." if found else "has no part that is told apart as the largest."
    assert text.split("weights ")[1].startswith(words)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 1])
def test_of_two_parts_that_are_alike_neither_is_called_the_largest_beyond_the_stated_rate(seeds):
    """Five in a hundred at most; a binomial with that rate is above the limit once in a hundred."""
    named, repeats = 0, 60
    for repeat in range(repeats):
        rng = np.random.default_rng(100 + repeat)
        out = within_layer(layer_of(two_way(rng, (seeds, 24, 24), (0.4, 0.4, 0.2)) - 2), num_bootstrap=200)
        named += "lies" in diagnostics.within_statement(out)
    assert named <= stats.binom.isf(0.01, repeats, 0.05)


def test_a_unit_whose_weights_the_data_tie_together_is_not_dead_though_each_alone_is_as_wide_as_the_prior():
    rng = np.random.default_rng(22)
    layer = dead_layer(rng, outputs=(3, 7))
    conditional = layer.sd.copy()
    conditional[0, 3] = 0.6
    tied = PlantedLayer(layer.sd, layer.mean, bias_sd=layer.bias_sd, conditional=conditional)
    out = within_layer(planted({"fc": tied}, factorised=False))
    assert out["dead_outputs"].values.tolist() == ["7"]
    text = diagnostics.within_statement(out)
    assert MEAN.join(("a contraction of 0.02 by the conditional sd", ": 1 output (7) of 'fc'")) in text
    before = out.drop_attrs(deep=False).assign_attrs({key: one for key, one in out.attrs.items() if "dead_" not in key})
    assert "by the marginal sd: 1 output (7)" in diagnostics.within_statement(before)  # a table of an older make


def test_statement_names_a_unit_once_that_is_dead_on_both_sides():
    rng = np.random.default_rng(12)
    layers = {"a": dead_layer(rng, outputs=(2, 5)), "b": dead_layer(rng, inputs=(2, 5)), "c": dead_layer(rng)}
    text = diagnostics.within_statement(within_layer(planted(layers)))
    assert text.endswith(f"0.02{MEAN}: 2 outputs (2, 5) of 'a', dead as inputs of 'b' too.")
    apart = layers | {"b": dead_layer(rng, inputs=(2,))}
    text = diagnostics.within_statement(within_layer(planted(apart)))
    assert text.endswith(f"0.02{MEAN}: 2 outputs (2, 5) of 'a'; 1 input (2) of 'b'.")


def test_what_the_factors_carry_has_intervals_over_seeds():
    rng = np.random.default_rng(13)
    idata = layer_of(rng.normal(-1, 0.1, size=(5, 6, 5)))
    spectra = (
        [np.geomspace(1, 10 * (1 + seed), 9) for seed in range(5)],
        [np.geomspace(1, 30 + seed, 4) for seed in range(5)],
    )
    out = within_layer(with_spectra(idata, "fc", *map(np.array, spectra)))
    expected = metrics.student_intervals(
        out["carried"].sel(layer="fc", carrier="input").values[:, None], simultaneous=False
    )
    assert float(out["carried_low"].sel(layer="fc", carrier="input")) == pytest.approx(expected.low[0])
    assert (
        f"input side ({max(100 * expected.low[0], 0):.0f} % to {100 * expected.high[0]:.0f} %)"
        in diagnostics.within_statement(out)
    )


def test_statement_speaks_of_several_networks_and_of_a_fit_that_had_not_converged():
    text = diagnostics.within_statement(within_layer(synthetic(num_chains=5, converged="no").idata), "log_snr")
    assert "In brackets 95 % intervals over 5 seeds, each for itself" in text
    assert "3, 3, 3, 3, 3 inputs (network by network) of 'fc1'" in text
    assert "The fit had not converged" in text


def test_what_cannot_be_split_is_refused():
    scale = planted({"norm": PlantedLayer(np.full((1, 30), 0.5))})
    with pytest.raises(
        SchemaError, match="uncertain weights of outputs by inputs is needed, but there is none among: norm"
    ):
        within_layer(scale)
    with pytest.raises(DataError, match=r"A tolerance between 0 and 1 is needed, got 2\."):
        within_layer(synthetic().idata, tolerance=2.0)
    with pytest.raises(DataError, match="A level between 0 and 1 is needed, got 95"):
        within_layer(synthetic().idata, level=95)
    out = within_layer(synthetic().idata)
    with pytest.raises(DataError, match="Unknown quantity 'log_sd_to'. Did you mean 'log_sd_to_prior'"):
        diagnostics.within_statement(out, "log_sd_to")
    with pytest.raises(SchemaError, match="A table with 'share' over 'part' is needed"):
        diagnostics.within_statement(diagnostics.layer_uncertainty(synthetic().idata))


def test_a_layer_without_an_interval_has_no_part_called_the_largest():
    rng = np.random.default_rng(5)
    text = diagnostics.within_statement(within_layer(layer_of(two_way(rng, (1, 10, 30), (0.9, 0.1, 0.1)) - 2)))
    assert "has no part that is told apart as the largest; without an interval: 'fc'." in text
