"""A sweep is many runs: what is complete is skipped, what is not is done again, and one table holds all."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import types
from dataclasses import replace

import pytest

from tests.synthetic import synthetic
from wiu_pyro.cli import main, pipeline, sweep
from wiu_pyro.cli.grid import SweepGrid
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.cli.sweep import Workers, is_complete, run_sweep
from wiu_pyro.cli.sweep_table import sweep_rows
from wiu_pyro.errors import DataError, DeviceError, FitError, OutputError
from wiu_pyro.export import files, save

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"
EPOCHS = 2


def build(num_classes, in_channels, image_size):
    height, width = image_size
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * height * width, num_classes))
    return wiu.nn.BayesianNetwork(net)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture(scope="module")
def posterior(tmp_path_factory):
    path = save(synthetic().idata, tmp_path_factory.mktemp("file") / "posterior.nc")
    return path, files.load(path)


@pytest.fixture
def fitted(monkeypatch, posterior):
    """Stand in for the fitting: a run leaves its folder as `wiu run` would; returns the runs that were made.

    The file of its posteriors is the same everywhere, and read once.
    """
    (written, held), made, load = posterior, [], files.load
    monkeypatch.setattr(files, "load", lambda path: held if path.is_file() else load(path))

    def leave(settings):
        made.append(settings.out.name)
        if settings.seed == 13:
            raise DataError("Thirteen is no seed. Take another.")
        if settings.seed == 14:
            raise KeyError("odd")
        sweep._script_sha256.cache_clear()
        (settings.out / "posteriors").mkdir(parents=True, exist_ok=True)
        for guide in settings.guides:
            shutil.copy(written, settings.out / "posteriors" / f"{guide}.nc")
        record = {
            "settings": vars(settings) | {"out": str(settings.out), "data_root": None, "guides": list(settings.guides)},
            "finished": True,
            "command": settings.command(),
            "model": {"name": "tiny", "sha256": sweep._script_sha256(settings.model)},
            "data": {"name": "digits"},
            "posteriors": {guide: {"fit_seconds": 1.5} for guide in settings.guides},
        }
        (settings.out / "run.json").write_text(json.dumps(record))
        if settings.report:
            (settings.out / "report.html").write_text("page")
        print("said by the run")

    monkeypatch.setattr(pipeline, "run_pipeline", leave)
    return made


def grid(tmp_path, script, **axes):
    axes = {"seeds": (0, 1), "guides": ("mean-field",)} | axes
    return SweepGrid(tmp_path / "sweep", models=(script,), **axes)


def test_complete_runs_are_skipped_and_the_others_done_again(tmp_path, script, fitted):
    asked = grid(tmp_path, script)
    run_sweep(asked, Workers())
    assert len(fitted) == 2
    run_sweep(asked, Workers())
    assert len(fitted) == 2
    cut = next(iter(asked.runs().values())).out
    (cut / "posteriors" / "mean-field.nc").unlink()
    run_sweep(asked, Workers())
    assert fitted[2:] == [cut.name]


@pytest.mark.parametrize("change", ["epochs", "guides", "script", "half", "page"])
def test_run_is_complete_only_with_all_that_is_asked_for(change, tmp_path, script, fitted):
    asked = grid(tmp_path, script, seeds=(0,))
    run_sweep(asked, Workers())
    (settings,) = asked.runs().values()
    assert is_complete(settings)
    if change == "epochs":
        (settings,) = grid(tmp_path, script, seeds=(0,), common=RunSettings(epochs=9)).runs().values()
    elif change == "guides":
        (settings,) = grid(tmp_path, script, seeds=(0,), guides=("mean-field", "laplace-diag")).runs().values()
    elif change == "script":
        (tmp_path / "tiny.py").write_text(SCRIPT + "# another\n")
        sweep._script_sha256.cache_clear()
    elif change == "half":
        (settings.out / "run.json").write_text("{")
    else:
        (settings.out / "report.html").unlink()
        assert is_complete(replace(settings, report=False))
    assert not is_complete(settings)


@pytest.mark.parametrize("report", [True, False])
def test_runs_with_a_page_and_without_are_the_same_but_for_the_page(report, tmp_path, script, fitted):
    first, then = (grid(tmp_path, script, seeds=(0,), common=RunSettings(report=one)) for one in (report, not report))
    run_sweep(first, Workers())
    (settings,) = first.runs().values()
    assert (settings.out / "report.html").is_file() == report
    run_sweep(then, Workers())
    assert (settings.out / "report.html").is_file()
    assert len(fitted) == (1 if report else 2)  # gone on with for its page alone


def test_table_has_a_row_for_each_posterior_with_its_figures_by_layer(tmp_path, script, fitted):
    table = run_sweep(grid(tmp_path, script, guides=("mean-field", "laplace-diag")), Workers())
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["posterior"]) for row in rows] == [
        *(("0", "mean-field"), ("0", "laplace-diag")),
        *(("1", "mean-field"), ("1", "laplace-diag")),
    ]
    assert all(row["status"] == "complete" and float(row["accuracy"]) > 0 for row in rows)
    assert {f"contraction {layer}" for layer in ("fc1", "fc2", "out")} <= set(rows[0])
    assert (tmp_path / "sweep" / rows[0]["file"]).is_file()


def test_runs_that_fail_leave_the_others_whole_and_are_named(tmp_path, script, fitted):
    asked = grid(tmp_path, script, seeds=(13, 14, 2))
    with pytest.raises(FitError, match=r"2 of 3 runs failed.*Thirteen is no seed.*KeyError: 'odd'"):
        run_sweep(asked, Workers())
    assert [row["status"] for row in sweep_rows(asked.out)] == ["missing", "missing", "complete"]
    logs = [(settings.out / "log.txt").read_text() for settings in asked.runs().values()]
    assert "Thirteen" in logs[0]
    assert "Traceback" in logs[1]
    assert "said by the run" in logs[2]


def test_tasks_of_an_array_do_their_shares_and_the_table_holds_all(tmp_path, script, fitted):
    asked = grid(tmp_path, script, seeds=(0, 1, 2))
    run_sweep(asked, Workers(task=1, num_tasks=2))
    assert [row["status"] for row in sweep_rows(asked.out)] == ["missing", "complete", "missing"]
    run_sweep(asked, Workers(task=0, num_tasks=2))
    assert [row["status"] for row in sweep_rows(asked.out)] == ["complete"] * 3


def test_seeds_added_later_stand_beside_the_first(tmp_path, script, fitted):
    run_sweep(grid(tmp_path, script), Workers())
    run_sweep(grid(tmp_path, script, seeds=(2,)), Workers())
    assert [row["seed"] for row in sweep_rows(tmp_path / "sweep")] == [0, 1, 2]


def test_dask_without_its_package_says_what_to_install(tmp_path, script, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DeviceError, match=r"--dask needs the package distributed.*wiu_pyro\[dask\]"):
        run_sweep(grid(tmp_path, script), Workers(dask="local"))


def test_dask_gets_each_run_as_a_task_and_a_lost_worker_ends_only_its_own(tmp_path, script, fitted, monkeypatch):
    class Future:
        def __init__(self, call, task):
            self.call, self.task = call, task

        def result(self):
            if self.task[0].endswith("seed1"):
                raise RuntimeError("worker lost")
            return self.call(self.task)

    class Client:
        def __init__(self, **options):
            assert options == {"address": "tcp://host:1"}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def nthreads(self):
            return threads

        def submit(self, call, task, **_):
            return Future(call, task)

    threads = {"a": 1, "b": 1}
    stub = types.SimpleNamespace(Client=Client, as_completed=list)
    monkeypatch.setitem(sys.modules, "distributed", stub)
    with pytest.raises(FitError, match=r"1 of 2 runs failed.*worker lost"):
        run_sweep(grid(tmp_path, script), Workers(dask="tcp://host:1"))
    assert [row["status"] for row in sweep_rows(tmp_path / "sweep")] == ["complete", "missing"]
    threads["b"] = 4
    with pytest.raises(DeviceError, match="one thread each are needed.* but 1 of 2 have more"):
        run_sweep(grid(tmp_path, script), Workers(dask="tcp://host:1"))


def test_no_process_is_refused(tmp_path, script):
    with pytest.raises(DataError, match="--jobs must be at least 1, got 0"):
        run_sweep(grid(tmp_path, script), Workers(jobs=0))


def test_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(OutputError, match="A folder with a sweep.json is needed"):
        sweep_rows(tmp_path)


def test_compare_reads_the_folder_and_gives_intervals_from_five_seeds_on(tmp_path, script, fitted, capsys):
    for seeds, interval in (((0, 1, 2, 3), False), ((4,), True)):
        run_sweep(grid(tmp_path, script, seeds=seeds), Workers())
        assert main(["compare", str(tmp_path / "sweep")]) == 0
        printed = capsys.readouterr().out
        row = next(line for line in printed.splitlines() if line.startswith("mean-field"))
        assert (" to " in row) == interval
    assert "fc1" in printed
    assert main(["compare", str(tmp_path / "sweep"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["posteriors"]) == 5


@pytest.mark.slow
@pytest.mark.training
def test_sweep_runs_what_wiu_run_would_in_processes_of_its_own(tmp_path, script, capsys):
    options = ["--models", script, "--priors", "own,normal:0.1", "--seeds", "0", "--guides", "laplace-diag"]
    options += ["--epochs", "1", "--num-samples", "5", "--no-report", "--out", str(tmp_path / "sweep")]
    assert main(["sweep", *options, "--jobs", "2"]) == 0
    rows = sweep_rows(tmp_path / "sweep")
    assert [(row["prior"], row["status"]) for row in rows] == [("own", "complete"), ("normal:0.1", "complete")]
    assert "0.1" in rows[1]["prior_in_force"]
    capsys.readouterr()
    assert main(["sweep", *options, "--list"]) == 0
    assert capsys.readouterr().out.count("complete") == 2
