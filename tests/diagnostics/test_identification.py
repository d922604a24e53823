"""What the data left at the prior: against plain counts, and against layers and units planted there."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tests.planted import PlantedLayer, planted, two_way
from tests.synthetic import CONV_LAYERS, synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.diagnostics import identified_cells
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export.container import build


def kl(mean, sd, prior_sd=1.0):
    """KL of N(mean, sd²) from N(0, prior sd²), by its definition."""
    return np.log(prior_sd / sd) + (sd**2 + mean**2) / (2 * prior_sd**2) - 0.5


def layer(seed, shape=(1, 30, 40), **more):
    """Weights that the data determine, some more and some less: an ordinary layer."""
    rng = np.random.default_rng(seed)
    sd = np.exp(0.3 * two_way(rng, shape, (1.0, 1.0, 1.0)) - 1.5)
    return PlantedLayer(sd=sd, mean=rng.normal(size=shape), bias_sd=np.full(shape[:2], 0.3), **more)


def at_prior(seed, shape=(1, 30, 40), *, noise=0.0):
    """A layer the data said nothing about, up to noise of the fit."""
    rng = np.random.default_rng(seed)
    sd = np.exp(noise * rng.normal(size=shape))
    return PlantedLayer(sd=sd, mean=noise * rng.normal(size=shape), bias_sd=np.ones(shape[:2]))


def with_dead(made, *, output=None, inputs=None):
    """The layer with an output, or an input, at the prior."""
    for place in ((slice(None), output), (slice(None), slice(None), inputs)):
        if place[-1] is not None:
            made.sd[place], made.mean[place] = 1.0, 0.0
    if output is not None:
        made.bias_sd[:, output] = 1.0
    return made


def asked(layers, **options):
    return diagnostics.identification(planted(layers), **options)


def with_training(idata, values):
    """The file with the KL a weight of its layers by epoch, (chain, epoch, layer)."""
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    names = schema.layer_names(idata)
    kept = {"kl_per_weight": (("chain", "epoch", "layer"), np.asarray(values, dtype="f4"))}
    coords = {"layer": names, "epoch": np.arange(len(values[0]))}
    return build(groups | {"training": xr.Dataset(kept, coords=coords)})


def regrouped(idata, change):
    """The file with its group `training` changed."""
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    return build(groups | {"training": change(groups["training"])})


def test_shares_are_plain_counts_over_weights_and_biases():
    rng = np.random.default_rng(0)
    mean, sd = 0.1 * rng.normal(size=(1, 30, 40)), np.exp(0.1 * rng.normal(size=(1, 30, 40)))
    bias_sd = np.exp(0.1 * rng.normal(size=(1, 30)))
    row = asked({"fc": PlantedLayer(sd=sd, mean=mean, bias_sd=bias_sd)}).sel(layer="fc")
    means, sds = np.append(mean, np.zeros(30)), np.append(sd, bias_sd)
    near = (np.abs(means) <= 0.05) & (np.abs(sds - 1) <= 0.05)
    assert float(row["unidentified"]) == pytest.approx(np.mean(kl(means, sds) <= 0.01))
    assert float(row["at_prior"]) == pytest.approx(np.mean(near))
    assert float(row["kl_q50"]) == pytest.approx(np.median(kl(means, sds)), rel=1e-4)
    small = np.concatenate([kl(mean, sd)[0], kl(0, bias_sd)[0][:, None]], axis=1) <= 0.01
    np.testing.assert_allclose(row["output_unidentified"], small.mean(axis=1))
    np.testing.assert_allclose(row["input_unidentified"], small[:, :-1].mean(axis=0))


def test_limits_of_the_measures_are_those_asked_for():
    table = asked({"fc": at_prior(1, noise=0.1)}, within=0.2, kl_below=0.05)
    made = at_prior(1, noise=0.1)
    means, sds = np.append(made.mean, np.zeros(30)), np.append(made.sd, np.ones(30))
    assert float(table["unidentified"][0]) == pytest.approx(np.mean(kl(means, sds) <= 0.05))
    assert float(table["at_prior"][0]) == pytest.approx(np.mean((np.abs(means) <= 0.2) & (np.abs(sds - 1) <= 0.2)))
    assert (table.attrs["within"], table.attrs["kl_below"]) == (0.2, 0.05)


def test_a_layer_at_the_prior_and_a_dead_unit_are_found_and_nothing_else():
    layers = {"fc1": layer(0), "fc2": at_prior(1, noise=0.02), "fc3": with_dead(layer(2), output=7), "out": layer(3)}
    table = asked(layers)
    assert table["layer_unidentified"].values.tolist() == [0, 1, 0, 0]
    assert table["unidentified_outputs"].values.tolist() == [0, 30, 1, 0]
    assert table["unidentified_inputs"].values.tolist() == [0, 40, 0, 0]
    text = diagnostics.identification_statement(table)
    assert "Unidentified as a whole" in text
    assert "'fc2' with 100 % (100 % to 100 %) of its weights" in text
    assert "Unidentified outputs, 95 % of their weights and more: 1 of 30 in 'fc3' (number 7)." in text
    assert "Unidentified inputs" not in text


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_network_has_no_unidentified_layer_or_unit(seed):
    table = asked({name: layer(10 * seed + place) for place, name in enumerate(("fc1", "fc2", "out"))})
    assert table["layer_unidentified"].values.tolist() == [0, 0, 0]
    assert table["unidentified_outputs"].values.sum() + table["unidentified_inputs"].values.sum() == 0
    text = diagnostics.identification_statement(table)
    assert text.startswith("No layer is unidentified as a whole.")
    assert "Unidentified outputs" not in text


def test_a_layer_that_works_through_few_units_is_not_unidentified():
    made = at_prior(4, (1, 60, 80))
    made.sd[:, 0] = 0.1
    table = asked({"fc": made})
    assert float(table["unidentified_low"][0]) > 0.95
    assert int(table["layer_unidentified"][0]) == 0


def test_inputs_that_are_always_zero_are_named():
    text = diagnostics.identification_statement(asked({"fc": with_dead(layer(5), inputs=[3, 11])}))
    assert "Unidentified inputs, 95 % of their weights and more: 2 of 40 in 'fc' (number 3, 11)." in text


def test_shares_stay_the_same_when_a_layer_is_scaled_together_with_its_prior():
    made = with_dead(layer(6), output=2)
    scaled = PlantedLayer(sd=10 * made.sd, mean=10 * made.mean, prior_sd=10.0, bias_sd=made.bias_sd)
    before, after = asked({"fc": made}), asked({"fc": scaled})
    xr.testing.assert_allclose(before.drop_vars("kl_q50"), after.drop_vars("kl_q50"))
    assert float(after["kl_q50"][0]) == pytest.approx(float(before["kl_q50"][0]), rel=1e-4)


def test_interval_within_a_network_holds_the_share_and_widens_with_the_spread_between_units():
    rng, width = np.random.default_rng(7), {}
    for name, rate in {"alike": np.full(40, 0.5), "apart": rng.permutation(np.repeat([0.05, 0.95], 20))}.items():
        made = layer(8, (1, 40, 50))
        dead = rng.uniform(size=(40, 50)) < rate[:, None]
        made.sd[0][dead], made.mean[0][dead] = 1.0, 0.0
        row = asked({"fc": made}).sel(layer="fc")
        assert float(row["unidentified_low"]) < float(row["unidentified"]) < float(row["unidentified_high"])
        width[name] = float(row["unidentified_high"] - row["unidentified_low"])
    assert width["apart"] > 2 * width["alike"]


def test_a_last_layer_of_ten_outputs_has_no_interval_and_says_so():
    table = asked({"out": at_prior(9, (1, 10, 50))})
    assert np.isnan(table["unidentified_low"][0])
    assert int(table["layer_unidentified"][0]) == 1
    assert "'out' with 100 % (no interval) of its weights" in diagnostics.identification_statement(table)


def test_over_five_seeds_the_interval_is_students():
    rng = np.random.default_rng(0)
    made = layer(11, (6, 30, 40))
    dead = rng.uniform(size=made.sd.shape) < np.linspace(0.4, 0.6, 6)[:, None, None]
    made.sd[dead], made.mean[dead] = 1.0, 0.0
    table = diagnostics.identification(planted({"fc": made}, seed=list(range(6))))
    each = table["unidentified"].sel(layer="fc").values
    low, high = stats.t.interval(0.95, 5, each.mean(), stats.sem(each))
    row = table.sel(layer="fc")
    assert (float(row["seeds_unidentified_low"]), float(row["seeds_unidentified_high"])) == pytest.approx((low, high))
    assert "over 6 seeds" in diagnostics.identification_statement(table)


def test_units_of_several_networks_are_counted_and_not_matched():
    made = layer(12, (3, 30, 40))
    for chain, unit in enumerate((4, 9, 20)):
        made.sd[chain, unit], made.mean[chain, unit], made.bias_sd[chain, unit] = 1.0, 0.0, 1.0
    table = asked({"fc": made})
    assert table["unidentified_outputs"].values.tolist() == [[1], [1], [1]]
    assert [int(row.argmax()) for row in table["output_unidentified"].values[:, 0]] == [4, 9, 20]
    assert "1 of 30 in 'fc'." in diagnostics.identification_statement(table)


def test_weights_at_a_point_estimate_are_left_out_and_not_called_identified():
    made = with_dead(layer(13), output=1)
    made.sd[:, :, ::2] = 0
    table = asked({"fc": made, "point": PlantedLayer(sd=np.zeros((1, 30, 40)))})
    assert table["num_left_out"].values.tolist() == [600, 1200]
    assert table["num_weights"].values.tolist() == [630, 0]
    assert float(table["output_unidentified"].sel(layer="fc")[1]) == 1
    assert np.isnan(table["unidentified"].sel(layer="point"))
    assert "'point'" not in diagnostics.identification_statement(table)


def test_outputs_all_at_a_point_estimate_are_no_clusters():
    made = layer(13)
    made.sd[:, 19:] = 0
    row = asked({"fc": made}).sel(layer="fc")
    assert (int(row["num_outputs"]), int(row["num_left_out"])) == (30, 11 * 40)  # each has its bias
    assert np.isnan(row["unidentified_low"])


def test_conditional_sds_are_taken_on_request():
    made = at_prior(14)
    tied = PlantedLayer(sd=made.sd, mean=made.mean, bias_sd=made.bias_sd, conditional=0.5 * made.sd)
    assert int(asked({"fc": tied})["layer_unidentified"][0]) == 1
    table = asked({"fc": tied}, sd="conditional")
    assert float(table["unidentified"][0]) == pytest.approx(30 / 1230)  # the biases
    assert "Weights whose conditional posterior" in diagnostics.identification_statement(table)
    with pytest.raises(SchemaError, match=r"sd_conditional.*Use sd='marginal'"):
        diagnostics.identification(synthetic(estimated=True).idata, sd="conditional")


def test_layers_of_different_size_are_padded_with_nan():
    table = asked({"fc1": layer(15, (1, 30, 40)), "out": layer(16, (1, 10, 30))})
    assert np.isfinite(table["output_unidentified"]).sum("output").values.tolist() == [30, 10]
    assert np.isfinite(table["input_unidentified"]).sum("input").values.tolist() == [40, 30]
    assert table["num_outputs"].values.tolist() == [30, 10]


def test_kernel_positions_count_to_their_input():
    made = synthetic(layers=CONV_LAYERS)
    table = diagnostics.identification(made.idata, kl_below=0.5)
    truth = made.truth["features.0"]
    small = kl(truth.mean[0], truth.sd[0], truth.prior_sd) <= 0.5
    row = table.sel(layer="features.0")
    assert float(row["unidentified"]) == pytest.approx(small.mean())
    assert float(row["input_unidentified"][0]) == pytest.approx(small[:54].mean())


def test_scales_without_inputs_have_a_share_and_no_units():
    row = asked({"norm": PlantedLayer(sd=np.ones((1, 50)), mean=np.zeros((1, 50)))}).sel(layer="norm")
    assert float(row["unidentified"]) == 1
    assert np.isnan(row["num_outputs"])
    assert int(row["layer_unidentified"]) == 1


def test_blocks_of_outputs_change_nothing(monkeypatch):
    made = with_dead(layer(17), output=3)
    whole = asked({"fc": made})
    monkeypatch.setattr(identified_cells, "BLOCK", 100)
    assert asked({"fc": made}).equals(whole)


def test_since_when_a_layer_is_unidentified_is_read_from_its_kl_by_epoch():
    layers = {"a": at_prior(18), "b": at_prior(19), "c": at_prior(20), "d": layer(21)}
    kept = [[[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.5, 1.0], [0.0, 0.005, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]]
    table = diagnostics.identification(with_training(planted(layers), kept))
    np.testing.assert_array_equal(table["unidentified_from"], [1, 2, 3, np.nan])
    assert table["unidentified_throughout"].values.tolist() == [1, 0, 0, 0]
    assert (
        "By the KL a weight through training: 'a' throughout, 'b' from epoch 2 on, 'c' from epoch 3 on."
        in diagnostics.identification_statement(table)
    )


def test_without_kept_epochs_the_statement_says_that_the_past_is_not_known():
    table = asked({"fc": at_prior(22)})
    assert "unidentified_from" not in table
    assert table.attrs["training"] == "nothing"
    assert "whether they were so all along is not known" in diagnostics.identification_statement(table)
    losses = regrouped(synthetic().idata, lambda data: data[["loss"]])
    assert diagnostics.identification(losses).attrs["training"] == "loss only"


def test_epochs_that_a_shorter_run_did_not_have_do_not_count():
    layers = {"a": at_prior(18, (2, 30, 40)), "b": at_prior(19, (2, 30, 40))}
    nothing = [np.nan, np.nan]
    kept = [[[0.5, 1.0], [0.0, 0.0], nothing, nothing], [[0.5, 0.0], [0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]]
    table = diagnostics.identification(with_training(planted(layers), kept))
    np.testing.assert_array_equal(table["unidentified_from"], [[2, 2], [4, 1]])
    assert table["unidentified_throughout"].values.tolist() == [[0, 0], [0, 1]]


def test_the_statement_says_by_which_curvature_a_point_estimate_was_seen():
    idata = with_training(planted({"a": at_prior(18)}), [[[0.0], [0.0]]])
    about = {"tracked_structure": "diagonal", "tracked_curvature": "ggn"}
    text = diagnostics.identification_statement(
        diagnostics.identification(regrouped(idata, lambda data: data.assign_attrs(about)))
    )
    assert "'a' throughout. Through the training the layers are seen by the diagonal of the GGN around" in text


def test_statement_says_that_noise_of_draws_hides_weights_at_the_prior():
    text = diagnostics.identification_statement(diagnostics.identification(synthetic(estimated=True).idata))
    assert "estimated from draws, whose noise moves weights off the prior" in text


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(DataError, match=r"within=0, kl_below=0.01, most=0.95\. Leave them out for"):
        diagnostics.identification(synthetic().idata, within=0)
    with pytest.raises(DataError, match="most=0.5"):
        diagnostics.identification(synthetic().idata, most=0.5)
    with pytest.raises(DataError, match="Unknown kind of standard deviation"):
        diagnostics.identification(synthetic().idata, sd="joint")
    with pytest.raises(SchemaError, match="A table with 'unidentified' and 'layer_unidentified' is needed"):
        diagnostics.identification_statement(diagnostics.layer_uncertainty(synthetic().idata))
