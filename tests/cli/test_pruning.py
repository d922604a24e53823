"""`wiu run --prune`: a table beside each posterior, shown on the page, gone with the run."""

import pytest
import xarray as xr

from tests.report.pictures import unpictured
from wiu_pyro.cli import main
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.interventions import CRITERIA

pytestmark = [pytest.mark.training, pytest.mark.slow]
OPTIONS = ["--epochs", "2", "--num-samples", "10", "--guides", "laplace-kfac"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pruned"
    with pytest.MonkeyPatch.context() as patched:
        unpictured(patched)
        assert main(["run", "--out", str(folder), "--prune", *OPTIONS]) == 0
    return folder


def test_run_writes_a_table_by_every_criterion_and_shows_it_on_the_page(folder):
    table = xr.load_dataset(folder / "interventions" / "pruning" / "laplace-kfac.nc", engine="h5netcdf")
    assert table["criterion"].values.tolist() == list(CRITERIA)
    assert "How many weights can go?" in (folder / "report.html").read_text()


def test_page_without_pruning_has_no_such_section_and_a_new_run_takes_the_table_away(folder, capsys, monkeypatch):
    unpictured(monkeypatch)
    assert main(["run", "--out", str(folder), "--overwrite", *OPTIONS]) == 0
    assert not (folder / "interventions" / "pruning" / "laplace-kfac.nc").exists()
    assert "How many weights can go?" not in (folder / "report.html").read_text()
    capsys.readouterr()
    assert main(["run", "--out", str(folder), "--resume", "--prune", *OPTIONS]) == 0
    assert "laplace-kfac was not pruned: its fit is gone" in " ".join(capsys.readouterr().err.split())


def test_command_asks_for_pruning_without_a_value():
    assert RunSettings(prune=True).command() == "wiu run digits_mlp --prune"
