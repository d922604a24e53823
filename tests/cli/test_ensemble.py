"""`wiu run` with ensembles: members kept and gone on with, one file each, the page with its sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from wiu_pyro import schema
from wiu_pyro.cli import main
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.errors import DataError
from wiu_pyro.export.files import load

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    layers = torch.nn.Flatten(), torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, num_classes)
    return wiu.nn.BayesianNetwork(torch.nn.Sequential(*layers))
"""
GUIDES = "laplace-kfac,ensemble,ensemble-laplace-kfac,swag"
OPTIONS = ["--epochs", "2", "--num-samples", "6", "--no-report", "--ensemble-size", "3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    script = folder / "tiny.py"
    script.write_text(SCRIPT)
    assert main(["run", str(script), "--out", str(folder / "run"), "--guides", GUIDES, *OPTIONS]) == 0
    return script, folder / "run"


def test_each_ensemble_is_one_file_with_its_members_along_chain(finished):
    _, folder = finished
    for name in ("ensemble", "ensemble-laplace-kfac"):
        idata = load(folder / "posteriors" / f"{name}.nc")
        attrs = schema.attrs(idata)
        assert attrs["approximation"] == name
        assert list(attrs["seed"]) == [0, 100_000, 200_000]
        assert schema.dataset(idata, "posterior").sizes["chain"] == 3


def test_first_member_is_the_runs_own_point_estimate_and_all_ensembles_share_the_others(finished):
    _, folder = finished
    files = {name: load(folder / "posteriors" / f"{name}.nc") for name in ("laplace-kfac", *GUIDES.split(",")[1:3])}
    means = {name: schema.dataset(idata, "moments_1")["mean"].values for name, idata in files.items()}
    np.testing.assert_array_equal(means["ensemble"][:1], means["laplace-kfac"])
    np.testing.assert_array_equal(means["ensemble"], means["ensemble-laplace-kfac"])
    kept = torch.load(folder / "members" / "2.pt", weights_only=True)["weights"]["1.weight"].numpy()
    np.testing.assert_array_equal(means["ensemble"][2], kept)


def test_resumed_run_keeps_the_members_that_were_trained(finished):
    script, folder = finished
    record = json.loads((folder / "run.json").read_text())
    before = np.array(schema.dataset(load(folder / "posteriors" / "ensemble.nc"), "moments_1")["mean"])
    (folder / "posteriors" / "ensemble.nc").unlink()
    (folder / "members" / "2.pt").unlink()
    kept = (folder / "members" / "1.pt").stat().st_mtime_ns
    assert main(["run", str(script), "--out", str(folder), "--guides", GUIDES, *OPTIONS, "--resume"]) == 0
    assert (folder / "members" / "1.pt").stat().st_mtime_ns == kept
    after = schema.dataset(load(folder / "posteriors" / "ensemble.nc"), "moments_1")["mean"].values
    np.testing.assert_array_equal(after, before)
    assert list(json.loads((folder / "run.json").read_text())["posteriors"]) == list(record["posteriors"])


def test_another_size_is_another_run(finished, capsys):
    script, folder = finished
    options = [*OPTIONS[:-1], "4"]
    assert main(["run", str(script), "--out", str(folder), "--guides", GUIDES, *options, "--resume"]) == 2
    assert "--ensemble-size was 3, now 4" in " ".join(capsys.readouterr().err.split())


def test_an_ensemble_of_one_is_refused_before_anything_is_loaded():
    with pytest.raises(DataError, match=r"--ensemble-size must be at least 2, got 1"):
        RunSettings(ensemble_size=1).check()


def test_one_network_is_shown_of_a_group_of_weights_for_units_of_two_do_not_correspond(finished, capsys):
    path = finished[1] / "posteriors" / "ensemble-laplace-kfac.nc"
    assert main(["summary", str(path), "--group", "layer_1"]) == 0
    shown = capsys.readouterr().out
    assert "layer_1 · the first of 3 networks" in shown
    first = schema.dataset(load(path), "layer_1")["bias"].values[0, :, 0].mean()
    row = next(line for line in shown.splitlines() if line.startswith("bias[0]"))
    assert float(row.split()[1]) == pytest.approx(first, abs=6e-4)


def test_a_point_ensembles_table_says_what_it_has_not(finished, capsys):
    assert main(["summary", str(finished[1] / "posteriors" / "ensemble.nc")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No layer of this posterior has weights with an uncertainty." in shown
    assert "factorises" not in shown


def test_sweeps_have_a_row_for_each_ensemble_of_each_seed(finished, tmp_path, capsys):
    script, _ = finished
    options = ["--guides", "ensemble", "--ensemble-size", "2", "--epochs", "1", "--num-samples", "4", "--no-report"]
    assert main(["sweep", "--models", str(script), "--seeds", "0,1", "--out", str(tmp_path), *options]) == 0
    assert main(["compare", str(tmp_path)]) == 0
    assert "ensemble" in capsys.readouterr().out


def test_layers_can_be_asked_of_an_ensemble(finished):
    _, folder = finished
    options = ["--guides", "ensemble-laplace-kfac", "--num-samples", "4", "--effect-draws", "5"]
    assert main(["stochastic-layers", str(folder), *options, "--no-refit", "--no-report"]) == 0
    assert (folder / "interventions" / "stochastic-layers" / "ensemble-laplace-kfac.nc").is_file()


def test_page_says_what_an_ensemble_is_and_whose_sds_swag_has(finished):
    assert main(["report", str(finished[1])]) == 0
    page = (finished[1] / "report.html").read_text()
    assert "Of an ensemble that is the first member" in page
    assert "of all 3 members together, all alike" in page
    assert "Every weight stands at a point estimate, without an uncertainty." in page
    assert "swag takes no part: its sds are those of the trajectory of a constant learning rate" in page
    assert "Not set side by side: " in page
