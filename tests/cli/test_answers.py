"""`wiu answers` on a small sweep: seeds joined, tables as the diagnostics have them, posteriors put together again."""

from __future__ import annotations

import json
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch
import xarray as xr

import wiu_pyro as wiu
from wiu_pyro.cli import main
from wiu_pyro.cli.answers import ENSEMBLE, _Written, groups_of_seeds
from wiu_pyro.cli.answers_interventions import fit_again
from wiu_pyro.cli.point import PointEstimate
from wiu_pyro.errors import DataError
from wiu_pyro.report import read_answers

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCRIPT = '''"""A tiny network."""
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    height, width = image_size
    layers = [torch.nn.Linear(in_channels * height * width, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()]
    layers.append(torch.nn.Linear(4, num_classes))
    return wiu.nn.BayesianNetwork(torch.nn.Sequential(torch.nn.Flatten(), *layers))
'''
FEW = ["--images", "60", "--prune-images", "60", "--num-samples", "4"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.py").write_text(SCRIPT)
    options = ["--epochs", "2", "--num-samples", "4", "--guides", "laplace-diag,mean-field", "--seeds", "0-1"]
    options += ["--train-images", "200", "--track-every", "1", "--no-report"]
    assert main(["sweep", "--models", str(folder / "tiny.py"), "--out", str(folder / "out"), *options]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def answers(sweep):
    out = sweep / "answers"
    assert main(["answers", str(sweep), "--out", str(out), "--interventions", *FEW]) == 0
    return read_answers(out)


def test_tables_are_those_of_the_joined_seeds(sweep, answers):
    (network,) = answers.networks
    assert answers.posteriors(network) == ["laplace-diag", "mean-field", ENSEMBLE]
    files = [folder.posterior("mean-field") for folder in groups_of_seeds(sweep)[0].folders]
    fresh = wiu.diagnostics.layer_uncertainty(wiu.concat([wiu.load(path) for path in files]))
    saved = answers.table(network, "layer_uncertainty", "mean-field")
    np.testing.assert_allclose(saved["contraction"], fresh["contraction"], rtol=1e-6)
    assert saved.sizes["chain"] == 2
    both = answers.table(network, "compare")
    assert set(both["posterior"].values) == {"laplace-diag", "mean-field", ENSEMBLE}


def test_the_record_says_what_the_tables_rest_on(answers):
    record = answers.record(answers.networks[0])
    assert record["seeds"] == [0, 1]
    assert record["data"]["num_train"] == 200
    assert record["about"] == "A tiny network."
    assert [set(one) for one in record["posteriors"]["mean-field"]] == [
        {"converged", "change", "threshold", "detail"}
    ] * 2
    assert "within_layer" in record["missing"][ENSEMBLE]
    assert json.dumps(record)


def test_interventions_are_over_all_seeds(answers):
    (network,) = answers.networks
    for name in ("laplace-diag", "mean-field"):
        assert answers.table(network, "pruning", name).attrs["num_networks"] == 2
        assert answers.table(network, "stochastic_layers", name).attrs["num_seeds"] == 2


def test_refits_are_trained_where_epochs_are_given_and_sets_are_those_asked_for(sweep, answers, tmp_path):
    out = tmp_path / "refits"
    options = ["--interventions", "--refit-epochs", "1", "--sets", "only", *FEW]
    assert main(["answers", str(sweep), "--out", str(out), "--no-tables", *options]) == 2
    assert main(["answers", str(sweep), "--out", str(out), *options]) == 0
    (network,) = answers.networks
    table = xr.load_dataset(out / network / "mean-field" / "stochastic_layers.nc.gz", engine="scipy")
    assert not table.attrs["refitted_reason"]
    assert "no train_data" in answers.table(network, "stochastic_layers", "mean-field").attrs["refitted_reason"]
    assert [str(name).split()[0] for name in table["layer_set"].values] == ["none", "only", "only", "only", "all"]


def test_an_earlier_table_goes_where_its_diagnostic_now_has_none(tmp_path):
    written = _Written(tmp_path / "net")
    written.add("mean-field", "compare", xr.Dataset({"accuracy": 0.5}))
    written.add("mean-field", "compare", "no predictions")
    assert not any((tmp_path / "net").rglob("*.nc.gz"))
    assert written.missing == {"mean-field": {"compare": "no predictions"}}


def test_interventions_are_asked_again_where_the_question_is_another_one(sweep, answers, tmp_path, capsys):
    (network,) = answers.networks
    copytree(answers.folder, tmp_path / "answers")
    command = ["answers", str(sweep), "--out", str(tmp_path / "answers"), "--no-tables", "--interventions", *FEW]
    assert main(command) == 0
    assert "pruning ..." not in capsys.readouterr().err
    command[command.index("--prune-images") + 1] = "50"
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "laplace-diag: pruning ..." in said
    assert "stochastic layers ..." not in said
    again = read_answers(tmp_path / "answers")
    assert again.table(network, "pruning", "mean-field").attrs["num_images"] == 50


def test_an_intervention_that_cannot_be_answered_leaves_its_reason_and_no_earlier_table(sweep, answers, tmp_path):
    (network,) = answers.networks
    copytree(answers.folder, tmp_path / "answers")
    command = ["answers", str(sweep), "--out", str(tmp_path / "answers"), "--no-tables", "--interventions", *FEW]
    assert main([*command, "--sets", "nonesuch"]) == 0
    left = read_answers(tmp_path / "answers")
    assert "nonesuch" in left.missing(network, "stochastic_layers")["mean-field"]
    with pytest.raises(DataError, match="nonesuch"):
        left.table(network, "stochastic_layers", "mean-field")
    assert left.table(network, "pruning", "mean-field").identical(answers.table(network, "pruning", "mean-field"))
    assert main(command) == 0
    assert not left.missing(network, "stochastic_layers")


def test_what_was_found_is_written_in_words(answers):
    for name in ("findings.rst", "brief.rst"):
        assert "**Is it enough to be Bayesian in the last layer?**" in (answers.folder / name).read_text()


def test_a_mean_field_put_together_from_its_file_is_the_one_that_was_fitted(sweep):
    seeds = groups_of_seeds(sweep)[0]
    plan = seeds.plan(1, ["mean-field"], None)
    plan = replace(plan, folder=seeds.folders[1])
    fit = fit_again(plan, "mean-field", PointEstimate.load(seeds.folders[1].point_estimate))
    again = wiu.to_inference_data(fit, data=plan.test, num_samples=4, seed=plan.settings.seed)
    saved = wiu.load(seeds.folders[1].posterior("mean-field"))
    for name in ("mean", "sd", "bias_mean", "bias_sd"):
        np.testing.assert_allclose(again["moments_4"][name], saved["moments_4"][name], rtol=1e-5)
    nll = [float(wiu.diagnostics.predictive(one)["nll"]) for one in (again, saved)]
    assert nll[0] == pytest.approx(nll[1], rel=1e-4)  # with the running statistics that its training ended with
    start = PointEstimate.load(seeds.folders[1].point_estimate).weights
    assert not torch.equal(fit.point_estimate["4.weight"], start["4.weight"])


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["answers", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "A sweep with complete runs is needed" in capsys.readouterr().err
