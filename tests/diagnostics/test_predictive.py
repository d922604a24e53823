"""Predictive quality against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.synthetic import synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.export.container import build

IDATA = synthetic().idata
DATA = schema.dataset(IDATA, "predictive_sampled").isel(chain=0)
LABELS = schema.dataset(IDATA, "observed_data")["obs"].values


def without(idata, *dropped):
    return build({name: schema.dataset(idata, name) for name in schema.groups(idata) if name not in dropped})


@pytest.mark.parametrize(("prefix", "column"), [("", "mean"), ("point_", "point_mean")])
def test_scores_equal_scikit_learn_for_posterior_and_point_estimate(prefix, column):
    out, p = diagnostics.predictive(IDATA), DATA[column].values.astype(np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    assert float(out[f"{prefix}accuracy"]) == np.mean(p.argmax(axis=1) == LABELS)
    assert float(out[f"{prefix}nll"]) == pytest.approx(log_loss(LABELS, p, labels=range(10)), rel=1e-5)
    brier = np.mean([np.sum((p[n] - np.eye(10)[label]) ** 2) for n, label in enumerate(LABELS)])
    assert float(out[f"{prefix}brier"]) == pytest.approx(brier, rel=1e-5)


def test_standard_error_of_the_accuracy_is_binomial():
    out = diagnostics.predictive(IDATA)
    share = float(out["accuracy"])
    assert float(out["accuracy_se"]) == pytest.approx(np.sqrt(share * (1 - share) / (len(LABELS) - 1)))


def test_entropy_is_the_sum_of_its_aleatoric_and_epistemic_part():
    out = diagnostics.predictive(IDATA)
    parts = float(out["expected_entropy"] + out["mutual_information"])
    assert float(out["predictive_entropy"]) == pytest.approx(parts, rel=1e-5)
    assert float(out["mutual_information"]) > 0


def test_images_declined_first_are_those_of_the_highest_entropy_with_what_was_predicted():
    out = diagnostics.predictive(IDATA, num_declined=5)
    entropy = DATA["predictive_entropy"].values
    first = sorted(range(len(entropy)), key=lambda n: -entropy[n])[:5]
    assert out["declined"].values.tolist() == first
    assert out["declined_label"].values.tolist() == LABELS[first].tolist()
    predicted = DATA["mean"].values[first].argmax(axis=1)
    assert out["declined_predicted"].values.tolist() == predicted.tolist()
    np.testing.assert_array_equal(out["declined_lower"], DATA["lower"].values[first, predicted])


def test_risk_at_half_coverage_is_the_error_rate_of_the_surer_half():
    out, entropy = diagnostics.predictive(IDATA), DATA["predictive_entropy"].values
    surer = np.argsort(entropy)[:60]
    wrong = DATA["mean"].values.argmax(axis=1) != LABELS
    assert float(out["risk"].sel(coverage=0.5)) == pytest.approx(wrong[surer].mean())
    point = DATA["point_mean"].values.astype(np.float64)
    order = np.argsort(-np.sum(point * np.log(point), axis=1))  # the point estimate declines by its own entropy
    curve = np.cumsum((point.argmax(axis=1) != LABELS)[order]) / np.arange(1, 121)
    np.testing.assert_allclose(out["point_risk"], curve, rtol=1e-6)
    assert float(out["risk"].sel(coverage=1.0)) == pytest.approx(1 - float(out["accuracy"]))
    assert float(out["aurc"]) == pytest.approx(float(out["risk"].mean()))
    assert float(out["auroc_error"]) == pytest.approx(roc_auc_score(wrong, entropy))


def test_reliability_table_counts_all_images_and_gives_the_ece():
    out = diagnostics.predictive(IDATA, bins=10)
    assert int(out["bin_count"].sum()) == len(LABELS)
    gap = np.abs(out["bin_accuracy"] - out["bin_confidence"]).fillna(0)
    assert float((gap * out["bin_count"]).sum() / len(LABELS)) == pytest.approx(float(out["ece"]))


def test_each_chain_is_judged_on_its_own():
    idata = synthetic(num_chains=2).idata
    out = diagnostics.predictive(idata)
    p = schema.dataset(idata, "predictive_sampled")["mean"].values
    labels = schema.dataset(idata, "observed_data")["obs"].values
    assert out["accuracy"].values.tolist() == [np.mean(p[c].argmax(axis=1) == labels) for c in range(2)]


def test_without_a_point_estimate_there_are_no_figures_of_one():
    out = diagnostics.predictive(synthetic(point=False).idata)
    assert not [name for name in out.data_vars if name.startswith("point_")]


def test_a_single_column_of_probabilities_is_that_of_class_one():
    groups = {name: schema.dataset(IDATA, name) for name in schema.groups(IDATA)}
    one = groups["predictive_sampled"][["mean", "point_mean"]].isel({"class": [0]})
    groups["predictive_sampled"] = one.assign(predictive_entropy=groups["predictive_sampled"]["predictive_entropy"])
    groups["observed_data"] = groups["observed_data"].copy(data={"obs": (LABELS == 0).astype(int)})
    out = diagnostics.predictive(build(groups))
    p = one["mean"].values[0, :, 0]
    assert float(out["nll"]) == pytest.approx(log_loss(LABELS == 0, p.astype(np.float64)), rel=1e-5)


def test_regression_gives_rmse_and_the_log_density_of_the_mixture_over_draws():
    idata = synthetic(likelihood="normal").idata
    out = diagnostics.predictive(idata)
    target = schema.dataset(idata, "observed_data")["obs"].values
    data = schema.dataset(idata, "predictive_sampled").isel(chain=0, output=0)
    assert float(out["rmse"]) == pytest.approx(np.sqrt(np.mean((data["mean"].values - target) ** 2)))
    draws = schema.dataset(idata, "log_likelihood")["obs"].values[0].astype(np.float64)
    assert float(out["nll"]) == pytest.approx(-np.mean(np.log(np.mean(np.exp(draws), axis=0))))
    inside = (target >= data["lower"].values) & (target <= data["upper"].values)
    assert float(out["interval_coverage"]) == inside.mean()


def test_what_the_file_lacks_is_said():
    with pytest.raises(SchemaError, match=r"A predictive of kind 'linearised' is needed, but the file holds: sampled"):
        diagnostics.predictive(IDATA, "linearised")
    with pytest.raises(SchemaError, match=r"Labels .* are needed"):
        diagnostics.predictive(without(IDATA, "observed_data"))
    with pytest.raises(SchemaError, match="The log likelihood of the sampled predictive"):
        diagnostics.predictive(without(synthetic(likelihood="normal").idata, "log_likelihood"))
