"""`wiu stochastic-layers` on a small run: tables in its folder, the finding on stdout, the section on the page."""

from __future__ import annotations

import pytest
import xarray as xr

from tests.report.pictures import unpictured
from wiu_pyro.cli import main
from wiu_pyro.report.folder import STOCHASTIC_LAYERS, RunFolder

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    height, width = image_size
    layers = [torch.nn.Linear(in_channels * height * width, 4), torch.nn.ReLU(), torch.nn.Linear(4, num_classes)]
    return wiu.nn.BayesianNetwork(torch.nn.Sequential(torch.nn.Flatten(), *layers))
"""
FEW = ["--num-samples", "4", "--effect-draws", "2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.py").write_text(SCRIPT)
    options = ["--epochs", "2", "--num-samples", "4", "--guides", "mean-field,laplace-kfac", "--no-report"]
    assert main(["run", str(folder / "tiny.py"), "--out", str(folder / "run"), *options]) == 0
    return folder / "run"


def test_tables_lie_in_the_folder_and_the_page_shows_them(finished, capsys, monkeypatch):
    unpictured(monkeypatch)
    assert main(["stochastic-layers", str(finished), "--ood", "digits", *FEW]) == 0
    out = capsys.readouterr().out
    assert "laplace-kfac: With the last layer '3' alone uncertain" in out
    assert "mean-field: With the last layer '3' alone uncertain" in out
    assert "Fitted to '3' alone (refitted)" in out
    tables = {
        name: xr.load_dataset(RunFolder(finished).intervention(STOCHASTIC_LAYERS, name), engine="h5netcdf")
        for name in ("mean-field", "laplace-kfac")
    }
    assert tables["laplace-kfac"].attrs["predictive"] == "linearised"
    auroc = tables["mean-field"]["value"].sel(metric="auroc_entropy", layer_set="all", kind="restricted")
    assert auroc.item() == pytest.approx(0.5)  # the same images are as uncertain as themselves
    page = (finished / "report.html").read_text()
    assert "Is the last layer enough?" in page
    assert "Which layers the variance comes from" in page


def test_one_posterior_can_be_taken_without_refits_and_without_the_page(finished, capsys):
    (finished / "report.html").write_text("as it was")
    options = ["--guides", "mean-field", "--no-refit", "--no-report"]
    assert main(["stochastic-layers", str(finished), *options, *FEW]) == 0
    out, err = capsys.readouterr()
    assert (finished / "report.html").read_text() == "as it was"
    assert f"Write it with: wiu report {finished}" in err
    assert "laplace-kfac: With" not in out
    assert "refitted" not in out.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guides", "laplace-full"], "has no posterior 'laplace-full'"),
        (["--ood", "nothing"], "nothing"),
        (["--num-samples", "1"], "num_samples must be at least 2"),
    ],
)
def test_wrong_arguments_are_exit_code_2(finished, arguments, message, capsys):
    assert main(["stochastic-layers", str(finished), *arguments]) == 2
    assert message in capsys.readouterr().err
