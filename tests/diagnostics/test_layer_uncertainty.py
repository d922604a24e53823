"""The layer table against the dense algebra the synthetic posterior was built from."""

import arviz as az
import numpy as np
import pytest

from tests.synthetic import LayerSpec, hold, synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build

COLUMNS = {
    "num_weights", "mean_abs", "sd_q05", "sd_q50", "sd_q95", "sd_to_prior", "snr_q05", "snr_q50", "snr_q95",
    "contraction", "kl", "kl_per_weight", "kl_share", "effective_share", "kl_total", "kl_between_layers",
}  # fmt: skip


def groups_of(idata):
    return {name: schema.dataset(idata, name) for name in schema.groups(idata)}


@pytest.mark.parametrize("factorised", [True, False])
@pytest.mark.parametrize("prior_varies", [True, False])
def test_every_column_equals_the_dense_gaussian_it_was_built_from(factorised, prior_varies):
    made = synthetic(factorised=factorised, prior_varies=prior_varies)
    table = diagnostics.layer_uncertainty(made.idata)
    for name, truth in made.truth.items():
        row, ratio = table.sel(layer=name), truth.sd[0] / truth.prior_sd
        expected = {
            "num_weights": truth.spec.num_weights,
            "mean_abs": np.abs(truth.mean).mean(),
            "sd_q05": np.quantile(truth.sd, 0.05),
            "sd_q50": np.quantile(truth.sd, 0.5),
            "sd_q95": np.quantile(truth.sd, 0.95),
            "sd_to_prior": np.median(ratio),
            "snr_q50": np.quantile(np.abs(truth.mean) / truth.sd, 0.5, method="nearest"),
            "contraction": np.mean(1 - ratio**2),
            "kl": truth.kl[0],
            "kl_per_weight": truth.kl[0] / truth.spec.num_weights,
        }
        for column, value in expected.items():
            assert float(row[column]) == pytest.approx(value, rel=1e-5), (name, column)


def test_effective_parameters_of_a_correlated_posterior_equal_the_trace():
    made = synthetic(factorised=False)
    table = diagnostics.layer_uncertainty(made.idata)
    assert "contraction_sum" not in table
    for name, truth in made.truth.items():
        trace = truth.spec.num_weights - np.trace(truth.covariance[0] / np.outer(truth.prior_sd, truth.prior_sd))
        assert float(table["effective_parameters"].sel(layer=name)) == pytest.approx(trace, rel=1e-4)


def test_a_factorised_posterior_has_a_contraction_sum_and_no_effective_parameters():
    table = diagnostics.layer_uncertainty(synthetic(factorised=True).idata)
    assert COLUMNS | {"contraction_sum"} == set(table.data_vars)


def test_a_correlated_posterior_has_conditional_columns_that_are_narrower():
    made = synthetic(factorised=False)
    table = diagnostics.layer_uncertainty(made.idata)
    extra = {"effective_parameters", "conditional_sd_to_prior", "conditional_contraction"}
    assert COLUMNS | extra == set(table.data_vars)
    expected = [np.median(truth.sd_conditional / truth.prior_sd) for truth in made.truth.values()]
    np.testing.assert_allclose(table["conditional_sd_to_prior"], expected, rtol=1e-5)
    expected = [np.mean(1 - (truth.sd_conditional / truth.prior_sd) ** 2) for truth in made.truth.values()]
    np.testing.assert_allclose(table["conditional_contraction"], expected, rtol=1e-5)
    assert (table["conditional_sd_to_prior"] < table["sd_to_prior"]).all()


def test_shares_of_layers_and_of_what_is_between_them_add_up_to_one():
    table = diagnostics.layer_uncertainty(synthetic(factorised=False, kl_between_layers=50.0).idata)
    assert float(table["kl_between_layers"]) == pytest.approx(50)
    assert float(table["kl_share"].sum() + table["kl_between_layers"] / table["kl_total"]) == pytest.approx(1)
    assert float(table["effective_share"].sum()) == pytest.approx(1)


def test_mixed_structures_keep_both_columns_each_where_it_applies():
    groups = groups_of(synthetic(factorised=False).idata)
    groups["moments_fc2"] = groups["moments_fc2"].assign_attrs(factorised=1)
    table = diagnostics.layer_uncertainty(build(groups))
    assert table["contraction_sum"].notnull().values.tolist() == [False, True, False]
    assert table["effective_parameters"].notnull().values.tolist() == [True, False, True]


UNCERTAINTY = (
    "contraction", "conditional_contraction", "sd_q05", "sd_q50", "sd_q95", "sd_to_prior", "conditional_sd_to_prior",
    "snr_q05", "snr_q50", "snr_q95", "effective_parameters", "effective_share", "kl", "kl_per_weight", "kl_share",
)  # fmt: skip


def test_a_layer_at_its_point_estimate_has_no_uncertainty_and_is_not_called_certain():
    made = synthetic(factorised=False)
    idata = hold(made.idata, "fc2")
    schema.validate(idata)
    table, whole = diagnostics.layer_uncertainty(idata), diagnostics.layer_uncertainty(made.idata)
    for name in UNCERTAINTY:
        assert np.isnan(table[name].sel(layer="fc2")), name
    others = ["fc1", "out"]
    for name in set(UNCERTAINTY) - {"effective_share", "kl_share"}:
        np.testing.assert_array_equal(table[name].sel(layer=others), whole[name].sel(layer=others))
    assert table["num_uncertain"].values.tolist() == [1040, 0, 130]
    assert table["mean_abs"].sel(layer="fc2") == whole["mean_abs"].sel(layer="fc2")
    assert float(table["effective_share"].sum()) == pytest.approx(1)
    assert table["kl"].attrs["kl_reason"] == "a layer at its point estimate has no density"
    assert "contraction_sum" not in table


def test_weights_held_at_their_point_estimate_do_not_count_in_the_figures_of_their_layer():
    made = synthetic(factorised=False)
    table = diagnostics.layer_uncertainty(hold(made.idata, "fc2", every=3))
    truth = made.truth["fc2"]
    held = np.concatenate([np.arange(192) % 3 == 0, np.arange(12) % 3 == 0])
    sd, prior = truth.sd[0, ~held], truth.prior_sd[~held]
    row = table.sel(layer="fc2")
    assert int(row["num_uncertain"]) == (~held).sum()
    assert int(row["num_weights"]) == 204
    np.testing.assert_allclose(row["contraction"], np.mean(1 - (sd / prior) ** 2), rtol=1e-5)
    np.testing.assert_allclose(row["effective_parameters"], np.sum(1 - (sd / prior) ** 2), rtol=1e-5)
    np.testing.assert_allclose(row["sd_to_prior"], np.median(sd / prior), rtol=1e-5)
    ratio = np.abs(truth.mean[0, ~held]) / sd
    np.testing.assert_allclose(row["snr_q95"], np.quantile(ratio, 0.95, method="nearest"), rtol=1e-5)
    np.testing.assert_allclose(row["kl_per_weight"], truth.kl[0] / (~held).sum(), rtol=1e-5)


def test_a_posterior_without_held_weights_has_no_column_of_their_number():
    assert "num_uncertain" not in diagnostics.layer_uncertainty(synthetic().idata)


def test_moments_estimated_from_draws_are_called_so_and_have_no_conditional_columns():
    table = diagnostics.layer_uncertainty(synthetic(factorised=False, estimated=True).idata)
    assert table.attrs["moments"] == "estimated"
    assert "conditional_sd_to_prior" not in table


def test_several_chains_keep_one_row_each():
    made = synthetic(num_chains=3)
    table = diagnostics.layer_uncertainty(made.idata)
    assert table["contraction"].sizes == {"chain": 3, "layer": 3}
    expected = [[np.abs(truth.mean[c]).mean() for truth in made.truth.values()] for c in range(3)]
    np.testing.assert_allclose(table["mean_abs"], expected, rtol=1e-5)


def test_the_table_is_the_same_after_a_round_trip_through_a_file(tmp_path):
    idata = synthetic(factorised=False).idata
    path = tmp_path / "posterior.nc"
    idata.to_netcdf(str(path), engine="h5netcdf")
    before, after = (diagnostics.layer_uncertainty(i) for i in (idata, az.from_netcdf(str(path))))
    assert after.equals(before)
    assert after.attrs == before.attrs


def test_a_file_without_moments_is_refused_with_what_it_holds():
    groups = {name: data for name, data in groups_of(synthetic().idata).items() if not name.startswith("moments_")}
    with pytest.raises(SchemaError, match=r"Moments of at least one layer .* the file holds: .*layer_fc1"):
        diagnostics.layer_uncertainty(build(groups))


def test_the_synthetic_posterior_follows_the_data_contract():
    for overrides in ({}, {"factorised": False, "num_chains": 2}, {"likelihood": "normal"}, {"estimated": True}):
        schema.validate(synthetic(**overrides).idata)


def test_statement_names_the_layers_most_and_least_determined_with_their_figures():
    made = synthetic(factorised=False)
    text = diagnostics.layer_statement(diagnostics.layer_uncertainty(made.idata))
    out, fc1 = made.truth["out"], made.truth["fc1"]
    assert text.startswith("Data determine layer 'out' most and layer 'fc1' least")
    assert f"{np.mean(1 - (out.sd / out.prior_sd) ** 2):.1%} of the prior variance is gone in 'out'" in text
    assert f"{np.sum(1 - (fc1.sd / fc1.prior_sd) ** 2):,.0f} effective of 1,040 parameters" in text
    assert "not converged" not in text


def test_statement_says_when_a_fit_had_not_converged_and_that_a_factorised_sd_is_conditional():
    text = diagnostics.layer_statement(diagnostics.layer_uncertainty(synthetic(converged="no").idata))
    assert "The fit had not converged (-ELBO changed by 8.00% over the last 2 of 20 epochs)" in text
    assert "its sd is about the conditional one" in text
    assert "contractions add up to" in text
    assert "effective of" not in text


def test_statement_speaks_of_one_layer_and_of_several_chains():
    one = synthetic(layers=(LayerSpec("only", (4, 3), 0.5),), dead_inputs=()).idata
    assert diagnostics.layer_statement(diagnostics.layer_uncertainty(one)).startswith("The one layer, 'only', has lost")
    several = diagnostics.layer_uncertainty(synthetic(num_chains=3, factorised=False).idata)
    assert "means over 3 chains; the same two layers stand at the ends in 3" in diagnostics.layer_statement(several)


def test_statement_refuses_another_table():
    with pytest.raises(SchemaError, match="A table with 'contraction' over 'layer' is needed"):
        diagnostics.layer_statement(diagnostics.training_loss(synthetic().idata))


def test_dataframe_has_one_row_a_layer_in_the_order_of_the_network_and_nothing_rounded():
    table = diagnostics.layer_uncertainty(synthetic().idata)
    frame = diagnostics.to_dataframe(table)
    assert frame.index.tolist() == ["fc1", "fc2", "out"]
    assert frame["contraction"].tolist() == table["contraction"].values.tolist()
    assert "kl_total" not in frame


def test_dataframe_of_chains_and_of_posteriors_has_both_in_its_index():
    several = diagnostics.to_dataframe(diagnostics.layer_uncertainty(synthetic(num_chains=2).idata))
    assert several.index.names == ["chain", "layer"]
    both = diagnostics.to_dataframe(diagnostics.compare([synthetic().idata, synthetic(factorised=False).idata]))
    assert both.index.tolist()[:4] == [
        *(("mean-field", name) for name in ("fc1", "fc2", "out")),
        ("laplace-kfac", "fc1"),
    ]
    with pytest.raises(SchemaError, match="A table over the dim 'layer' is needed"):
        diagnostics.to_dataframe(diagnostics.training_loss(synthetic().idata))
