"""What lies within layers and along training: distributions, maps, loss."""

import numpy as np
import pytest

from tests.synthetic import CONV_LAYERS, hold, synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export.container import build
from wiu_pyro.infer.convergence import assess

MADE = synthetic(factorised=False)


@pytest.mark.parametrize("metric", ["sd_to_prior", "conditional_sd_to_prior", "contraction", "signal_to_noise"])
def test_densities_integrate_to_the_share_of_weights_within_the_edges(metric):
    out = diagnostics.weight_distribution(MADE.idata, metric)
    scale = np.log10 if out.attrs["log"] else np.asarray
    width = scale(out["right"].values) - scale(out["left"].values)
    np.testing.assert_allclose((out["density"] * width).sum("bin") + out["outside"], 1, rtol=1e-9)
    assert (out["outside"] < 0.05).all()


def test_density_of_one_bin_is_the_share_of_weights_in_it():
    out = diagnostics.weight_distribution(MADE.idata, "contraction", bins=10)
    truth = MADE.truth["fc2"]
    values = 1 - (truth.sd[0] / truth.prior_sd).astype(np.float32) ** 2
    left, right = float(out["left"][4]), float(out["right"][4])
    share = np.mean((values >= left) & (values < right))
    assert float(out["density"].sel(layer="fc2")[4]) * (right - left) == pytest.approx(share)


def test_share_of_weights_at_the_prior_is_that_of_the_dead_inputs():
    out = diagnostics.weight_distribution(MADE.idata)
    assert float(out["at_prior"].sel(layer="fc1")) == pytest.approx(3 * 16 / 1040)
    assert float(out["at_prior"].sel(layer="out")) == 0


def test_distribution_refuses_what_it_does_not_know():
    with pytest.raises(DataError, match=r"Unknown metric 'sd_to_prio'. Did you mean 'sd_to_prior'"):
        diagnostics.weight_distribution(MADE.idata, "sd_to_prio")
    with pytest.raises(SchemaError, match="Conditional sds are needed"):
        diagnostics.weight_distribution(synthetic(estimated=True).idata, "conditional_sd_to_prior")
    with pytest.raises(DataError, match="bins=0"):
        diagnostics.weight_distribution(MADE.idata, bins=0)


def test_map_of_a_small_layer_is_its_weight_matrix():
    out = diagnostics.weight_map(MADE.idata, "fc2", "mean")
    np.testing.assert_allclose(out["value"], MADE.truth["fc2"].mean[0, :192].reshape(12, 16), rtol=1e-6)
    assert out.attrs["block"] == [1, 1]


def test_map_of_a_large_layer_holds_means_over_blocks_of_weights():
    out = diagnostics.weight_map(MADE.idata, "fc1", "sd", max_size=15)
    sd = MADE.truth["fc1"].sd[0, :1024].reshape(16, 64)
    assert out.attrs["block"] == [2, 5]
    assert out["value"].shape == (8, 13)
    np.testing.assert_allclose(out["value"][3, 2], sd[6:8, 10:15].mean(), rtol=1e-6)
    np.testing.assert_allclose(out["value"][7, 12], sd[14:, 60:].mean(), rtol=1e-6)


def test_map_of_a_convolution_lays_kernels_along_the_inputs():
    made = synthetic(layers=CONV_LAYERS)
    out = diagnostics.weight_map(made.idata, quantity="signal_to_noise")
    truth = made.truth["features.0"]
    np.testing.assert_allclose(out["value"], (np.abs(truth.mean) / truth.sd)[0, :54].reshape(6, 9), rtol=1e-5)


def test_shares_of_variation_are_those_of_a_two_way_analysis_of_variance():
    out, sd = diagnostics.weight_map(MADE.idata, "fc2", "sd", max_size=4), MADE.truth["fc2"].sd[0, :192].reshape(12, 16)
    total = ((sd - sd.mean()) ** 2).sum()
    assert float(out["output_share"]) == pytest.approx(16 * ((sd.mean(1) - sd.mean()) ** 2).sum() / total, rel=1e-5)
    assert float(out["input_share"]) == pytest.approx(12 * ((sd.mean(0) - sd.mean()) ** 2).sum() / total, rel=1e-5)


def test_weights_that_are_all_alike_have_no_share_of_variation():
    made = synthetic()
    schema.dataset(made.idata, "moments_fc2")["sd"].values[:] = 0.1
    assert np.isnan(diagnostics.weight_map(made.idata, "fc2", "sd")["input_share"])


def test_map_refuses_what_is_not_there():
    with pytest.raises(SchemaError, match=r"Unknown layer 'fc3'\. Did you mean 'fc2' or 'fc1'"):
        diagnostics.weight_map(MADE.idata, "fc3")
    with pytest.raises(DataError, match="Unknown quantity 'variance'"):
        diagnostics.weight_map(MADE.idata, "fc1", "variance")
    with pytest.raises(DataError, match="max_size=0"):
        diagnostics.weight_map(MADE.idata, max_size=0)


@pytest.mark.parametrize("prior_varies", [True, False])
def test_pixels_that_are_zero_in_every_image_are_at_the_prior_on_the_map(prior_varies):
    out = diagnostics.input_map(synthetic(factorised=False, prior_varies=prior_varies).idata)
    dead = out["sd_to_prior"].values.ravel()[[0, 32, 39]]
    np.testing.assert_allclose(dead, 1, rtol=1e-5)
    np.testing.assert_array_equal(out["mean_to_prior"].values.ravel()[[0, 32, 39]], 0)
    assert (np.delete(out["sd_to_prior"].values.ravel(), [0, 32, 39]) < 0.95).all()


def test_a_pixel_of_the_map_is_the_root_mean_square_over_outputs():
    truth, out = MADE.truth["fc1"], diagnostics.input_map(MADE.idata)
    ratio = (truth.sd[0] / truth.prior_sd)[:1024].reshape(16, 64)
    assert float(out["sd_to_prior"][0, 2, 5]) == pytest.approx(np.sqrt(np.mean(ratio[:, 21] ** 2)), rel=1e-5)


def test_input_map_needs_a_dense_layer_and_the_image_shape():
    with pytest.raises(SchemaError, match=r"A dense first layer.*shape \(6, 1, 3, 3\)"):
        diagnostics.input_map(synthetic(layers=CONV_LAYERS).idata)
    bare = synthetic(images=False).idata
    with pytest.raises(SchemaError, match=r"the file holds no images.*Pass image_shape"):
        diagnostics.input_map(bare)
    assert diagnostics.input_map(bare, image_shape=(1, 8, 8))["sd_to_prior"].shape == (1, 8, 8)


def test_means_of_the_loss_are_those_the_convergence_rule_compares():
    idata = synthetic(num_epochs=50).idata
    out, loss = diagnostics.training_loss(idata), schema.dataset(idata, "training")["loss"].values[0].astype(float)
    assert (int(out["before_start"]), int(out["tail_start"])) == (40, 45)
    assert float(out["tail_mean"]) == pytest.approx(loss[45:].mean())
    change = abs(float(out["tail_mean"]) - float(out["before_mean"])) / abs(float(out["tail_mean"]))
    assert change == pytest.approx(assess(loss.tolist()).change)


def test_a_fit_of_few_epochs_has_no_means_to_judge_by():
    assert np.isnan(diagnostics.training_loss(synthetic(num_epochs=5).idata)["tail_mean"])


def test_a_posterior_around_given_weights_has_no_loss():
    groups = {name: schema.dataset(MADE.idata, name) for name in schema.groups(MADE.idata)}
    with pytest.raises(SchemaError, match="A loss by epoch"):
        diagnostics.training_loss(build({name: data for name, data in groups.items() if name != "training"}))
    groups["training"] = groups["training"].isel(epoch=slice(0))
    with pytest.raises(SchemaError, match="fit with epochs > 0"):
        diagnostics.training_loss(build(groups))


@pytest.mark.parametrize("name", sorted(set(diagnostics.__all__) - {"agreement", "compare"}))
def test_every_diagnostic_takes_a_posterior_alone_and_says_whether_it_had_converged(name):
    out = getattr(diagnostics, name)(synthetic(converged="no", num_chains=2).idata)
    assert out.attrs["converged"] == "no"
    assert out.sizes["chain"] == 2
    assert "chain" not in getattr(diagnostics, name)(MADE.idata).dims


def test_a_layer_at_its_point_estimate_has_no_distribution_and_leaves_those_of_the_others():
    made = synthetic()
    out, whole = (
        diagnostics.weight_distribution(idata, "contraction") for idata in (hold(made.idata, "fc2"), made.idata)
    )
    assert float(out["uncertain"].sel(layer="fc2")) == 0
    for name in ("density", "q05", "q50", "q95", "at_prior", "outside"):
        assert out[name].sel(layer="fc2").isnull().all(), name
        assert out[name].sel(layer=["fc1", "out"]).notnull().all(), name
    np.testing.assert_array_equal(out["q50"].sel(layer="fc1"), whole["q50"].sel(layer="fc1"))


@pytest.mark.parametrize("metric", ["sd_to_prior", "conditional_sd_to_prior", "signal_to_noise", "contraction"])
def test_held_weights_are_not_in_the_distribution_of_the_others(metric):
    made = synthetic(factorised=False)
    out = diagnostics.weight_distribution(hold(made.idata, "fc2", every=2), metric)
    row = out.sel(layer="fc2")
    assert float(row["uncertain"]) == pytest.approx(0.5)
    scale = np.log10 if out.attrs["log"] else np.asarray
    width = scale(out["right"].values) - scale(out["left"].values)
    assert float((row["density"] * width).sum() + row["outside"]) == pytest.approx(1)
    assert np.isfinite(row["q95"])
    if metric == "contraction":
        assert float(row["q95"]) < 1


def test_map_of_held_weights_has_gaps_and_averages_the_others():
    made = synthetic()
    idata = hold(made.idata, "fc2", every=2)
    out = diagnostics.weight_map(idata, "fc2", "sd_to_prior")
    ratio = (made.truth["fc2"].sd[0] / made.truth["fc2"].prior_sd)[:192].reshape(12, 16)
    held = (np.arange(192) % 2 == 0).reshape(12, 16)
    np.testing.assert_array_equal(np.isnan(out["value"]), held)
    np.testing.assert_allclose(out["value"].values[~held], ratio[~held], rtol=1e-5)
    blocks = diagnostics.weight_map(idata, "fc2", "sd_to_prior", max_size=6)["value"].values
    first = ratio[:2, :3][~held[:2, :3]].mean()
    np.testing.assert_allclose(blocks[0, 0], first, rtol=1e-5)
    assert np.isfinite(blocks).all()
    assert np.isnan(out["output_share"])
    assert np.isfinite(diagnostics.weight_map(idata, "fc2", "mean")["value"]).all()


def test_maps_pass_over_a_layer_at_its_point_estimate():
    idata = hold(synthetic().idata, "fc1")
    assert diagnostics.weight_map(idata).attrs["layer"] == "fc2"
    assert diagnostics.weight_map(idata, "fc1", "mean")["value"].notnull().all()
    with pytest.raises(SchemaError, match="a map of the posterior sd, but layer 'fc1' is held at its point estimate"):
        diagnostics.weight_map(idata, "fc1", "sd")
    with pytest.raises(SchemaError, match="A posterior of the first layer is needed, but 'fc1' is held"):
        diagnostics.input_map(idata)


def test_input_map_is_of_the_weights_that_have_a_posterior():
    made = synthetic()
    out = diagnostics.input_map(hold(made.idata, "fc1", every=2))["sd_to_prior"].values.reshape(-1)
    ratio = (made.truth["fc1"].sd[0] / made.truth["fc1"].prior_sd)[:1024].reshape(16, 64)
    assert np.isnan(out[::2]).all()  # the held weights are all those of every other pixel
    np.testing.assert_allclose(out[1::2], np.sqrt((ratio**2).mean(0))[1::2], rtol=1e-5)
