"""Comparison of posteriors: like beside like, and paired differences image by image."""

import numpy as np
import pytest
from scipy import stats

from tests.synthetic import LayerSpec, hold, synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.export import concat
from wiu_pyro.export.container import build

MEAN_FIELD = synthetic(noise=1.5)
KFAC = synthetic(factorised=False, seed=1)


def densities(made, kind):
    p = schema.dataset(made.idata, f"predictive_{kind}")["mean"].values[0].astype(np.float64)
    labels = schema.dataset(made.idata, "observed_data")["obs"].values
    return np.array([np.log(p[n, label]) for n, label in enumerate(labels)])


def test_conditional_sd_stands_beside_conditional_and_marginal_beside_marginal():
    out = diagnostics.compare({"vi": MEAN_FIELD.idata, "kfac": KFAC.idata})
    for name in ("fc1", "fc2", "out"):
        vi, kfac = MEAN_FIELD.truth[name], KFAC.truth[name]
        row = out.sel(layer=name)
        assert row["conditional_sd_to_prior"].values == pytest.approx(
            [np.median(vi.sd / vi.prior_sd), np.median(kfac.sd_conditional / kfac.prior_sd)], rel=1e-5
        )
        assert np.isnan(row["marginal_sd_to_prior"].sel(posterior="vi"))
        assert float(row["marginal_sd_to_prior"].sel(posterior="kfac")) == pytest.approx(
            np.median(kfac.sd / kfac.prior_sd), rel=1e-5
        )
        assert row["conditional_contraction"].values == pytest.approx(
            [np.mean(1 - (vi.sd / vi.prior_sd) ** 2), np.mean(1 - (kfac.sd_conditional / kfac.prior_sd) ** 2)], rel=1e-5
        )
        assert row["kl"].values == pytest.approx([vi.kl[0], kfac.kl[0]])


def test_elpd_and_its_paired_differences_equal_sums_over_images():
    out = diagnostics.compare([MEAN_FIELD.idata, KFAC.idata])
    vi, kfac = densities(MEAN_FIELD, "sampled"), densities(KFAC, "linearised")
    np.testing.assert_allclose(out["elpd"], [vi.sum(), kfac.sum()], rtol=1e-5)
    best = int(np.argmax([vi.sum(), kfac.sum()]))
    assert out.attrs["best"] == str(out["posterior"].values[best])
    difference = (vi - kfac) * (1 if best == 1 else -1)
    worse = out.isel(posterior=1 - best)
    assert float(worse["elpd_diff"]) == pytest.approx(difference.sum(), rel=1e-4)
    assert float(worse["elpd_diff_se"]) == pytest.approx(np.sqrt(120) * difference.std(ddof=1), rel=1e-4)
    assert float(worse["elpd_diff_se"]) < float(np.hypot(*out["elpd_se"].values))


def test_elpd_is_minus_the_nll_that_predictive_reports():
    out = diagnostics.compare([MEAN_FIELD.idata, KFAC.idata])
    for made, mean in zip((MEAN_FIELD, KFAC), out["elpd_mean"].values, strict=True):
        assert mean == pytest.approx(-float(diagnostics.predictive(made.idata)["nll"]))


def test_five_seeds_give_intervals_over_them_together_over_the_layers():
    seeds = [synthetic(seed=seed) for seed in range(5)]
    out = diagnostics.compare({"vi": concat([made.idata for made in seeds]), "one": seeds[0].idata}).sel(posterior="vi")
    for name in ("fc1", "fc2", "out"):
        ratios = [made.truth[name].sd / made.truth[name].prior_sd for made in seeds]
        each = [np.mean(1 - ratio**2) for ratio in ratios]
        reach = stats.t.isf(0.05 / (2 * 3), 4) * np.std(each, ddof=1) / np.sqrt(5)
        row = out.sel(layer=name)
        assert float(row["conditional_contraction_low"]) == pytest.approx(np.mean(each) - reach, rel=1e-4)
        assert float(row["conditional_contraction_high"]) == pytest.approx(np.mean(each) + reach, rel=1e-4)


def test_fewer_than_five_seeds_give_none():
    out = diagnostics.compare({"a": concat([synthetic(seed=seed).idata for seed in range(4)]), "b": MEAN_FIELD.idata})
    assert "kl_low" not in out


def test_names_come_from_the_approximation_and_repeat_with_a_number():
    out = diagnostics.compare([MEAN_FIELD.idata, synthetic(seed=5).idata, KFAC.idata])
    assert out["posterior"].values.tolist() == ["mean-field", "mean-field 2", "laplace-kfac"]
    assert out["converged"].values.tolist() == ["yes"] * 3


def test_posteriors_of_different_layers_are_joined_and_what_is_missing_is_missing():
    short = synthetic(layers=(LayerSpec("fc1", (16, 64), 0.2), LayerSpec("head", (10, 16), 0.5))).idata
    out = diagnostics.compare({"a": MEAN_FIELD.idata, "b": short})
    assert out["layer"].values.tolist() == ["fc1", "fc2", "out", "head"]
    assert np.isnan(out["kl"].sel(posterior="b", layer="out"))


def test_chains_are_averaged_image_by_image():
    several = synthetic(num_chains=2)
    out = diagnostics.compare([several.idata, KFAC.idata])
    expected = diagnostics.predictive(several.idata)["nll"].mean()
    assert float(out["elpd_mean"][0]) == pytest.approx(-float(expected))


def test_without_predictions_the_layers_are_compared_and_it_is_said():
    kept = [name for name in schema.groups(KFAC.idata) if not name.startswith(("predictive_", "observed"))]
    bare = build({name: schema.dataset(KFAC.idata, name) for name in kept})
    out = diagnostics.compare([MEAN_FIELD.idata, bare])
    assert out.attrs["no_predictive"] == "laplace-kfac"
    assert "elpd" not in out
    assert "kl" in out


def test_other_observations_are_refused():
    with pytest.raises(SchemaError, match="same observations, but 'mean-field' holds 120 and 'mean-field 2' 120"):
        diagnostics.compare([MEAN_FIELD.idata, synthetic(data_seed=8).idata])
    with pytest.raises(SchemaError, match="holds 120 and 'mean-field 2' 60"):
        diagnostics.compare([MEAN_FIELD.idata, synthetic(num_obs=60).idata])


def test_a_single_posterior_or_none_is_refused():
    with pytest.raises(SchemaError, match="Several posteriors are needed.*Put it into a list"):
        diagnostics.compare(MEAN_FIELD.idata)
    with pytest.raises(SchemaError, match="got none"):
        diagnostics.compare([])


def test_predictions_of_other_inputs_with_the_same_labels_are_refused():
    groups = {name: schema.dataset(KFAC.idata, name) for name in schema.groups(KFAC.idata)}
    shifted = groups | {"constant_data": groups["constant_data"].assign(x=groups["constant_data"]["x"] + 0.1)}
    with pytest.raises(SchemaError, match="their inputs or labels differ"):
        diagnostics.compare([MEAN_FIELD.idata, build(shifted)])
    without = build({name: data for name, data in groups.items() if name != "constant_data"})
    assert "elpd" in diagnostics.compare([MEAN_FIELD.idata, without])


def test_a_layer_at_its_point_estimate_is_compared_with_nothing():
    last = hold(hold(KFAC.idata, "fc1"), "fc2")
    out = diagnostics.compare({"all": KFAC.idata, "last": last})
    columns = ("conditional_contraction", "marginal_contraction", "conditional_sd_to_prior", "kl", "kl_per_weight")
    for name in columns:
        row = out[name].sel(posterior="last")
        assert row.notnull().values.tolist() == [False, False, True], name
        assert row.sel(layer="out") == out[name].sel(posterior="all", layer="out"), name
    assert out["factorised"].values.tolist() == [0, 0]
