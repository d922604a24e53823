from __future__ import annotations

from pathlib import Path

import pytest

from wiu_pyro.cli.grid import SweepGrid, parse_seeds, read_config, share_of_task
from wiu_pyro.cli.priors import parse_prior
from wiu_pyro.errors import DataError, PriorError

OUT = Path("sweeps/a")


def grid(**axes):
    return read_config(None, OUT, axes)


def test_every_combination_is_one_run_in_a_folder_of_its_own():
    runs = grid(models="digits_mlp,mnist_mlp", priors="own,normal:0.1", seeds="0-2", epochs=3).runs()
    assert len(runs) == 2 * 2 * 3
    assert len({settings.out for settings in runs.values()}) == 12
    name = next(name for name in runs if name.startswith("mnist_mlp_normal") and name.endswith("seed1"))
    one = runs[name]
    assert (one.model, one.prior, one.seed, one.epochs, one.data) == ("mnist_mlp", "normal:0.1", 1, 3, None)
    assert one.out == OUT / "runs" / name


def test_scripts_of_one_name_in_two_folders_have_two_run_folders():
    runs = SweepGrid(OUT, models=("a/net.py", "b/net.py"), seeds=(0,)).runs()
    assert len(runs) == 2
    assert all(name.startswith("net-") for name in runs)


def test_file_gives_the_grid_and_options_go_before_it(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text('models = ["digits_mlp"]\nseeds = [0, 3]\nguides = ["laplace-kfac"]\nepochs = 7\nreport = false\n')
    found = read_config(file, OUT, {"seeds": "1", "guides": None})
    assert (found.seeds, found.guides, found.common.epochs) == ((1,), ("laplace-kfac",), 7)
    assert not found.common.report
    assert read_config(file, OUT, {"report": True}).common.report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ['a']", r"unknown key 'model'. Did you mean 'models'"),
        ("seeds = ['a']", r"'seeds' needs a list of whole numbers"),
        ("models = 3", r"'models' needs a list of names"),
        ("models = [", r"cannot be read"),
    ],
)
def test_file_that_is_no_grid_is_refused(text, message, tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_config(file, OUT, {})


@pytest.mark.parametrize(("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("3,0-1", (3, 0, 1))])
def test_seeds_are_ranges_and_lists(text, seeds):
    assert parse_seeds(text) == seeds


def test_seeds_that_cannot_be_read_are_refused():
    with pytest.raises(DataError, match=r"--seeds needs whole numbers or ranges, got '1.5'"):
        parse_seeds("0,1.5")


def test_axis_that_is_empty_or_names_a_thing_twice_is_refused():
    with pytest.raises(DataError, match="--seeds needs one value at least and each once, got none"):
        SweepGrid(OUT, seeds=()).runs()
    with pytest.raises(DataError, match="--models needs one value at least and each once, got a, a"):
        SweepGrid(OUT, models=("a", "a")).runs()


def test_settings_of_a_run_are_checked_before_any_run_begins():
    with pytest.raises(DataError, match="--epochs must be at least 1, got 0"):
        grid(epochs=0).runs()


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7])
def test_tasks_share_the_runs_without_one_left_or_done_twice(num_tasks):
    names = [f"run{number}" for number in range(5)]
    shares = [share_of_task(names, task, num_tasks) for task in range(num_tasks)]
    assert sorted(sum(shares, [])) == names
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("task", "num_tasks"), [(0, None), (None, 2), (2, 2), (-1, 2)])
def test_share_that_is_none_of_the_array_is_refused(task, num_tasks):
    with pytest.raises(DataError, match="--task and --num-tasks go together"):
        share_of_task(["a"], task, num_tasks)


@pytest.mark.parametrize(
    ("text", "found"), [("fan-in", ("fan-in", None)), ("normal:0.1", ("normal", 0.1)), ("laplace:2", ("laplace", 2.0))]
)
def test_prior_is_a_name_and_a_scale(text, found):
    assert parse_prior(text) == found


@pytest.mark.parametrize("text", ["normal", "normal:-1", "normal:x", "laplace:inf"])
def test_prior_without_a_positive_scale_is_refused(text):
    with pytest.raises(PriorError, match="needs a positive scale after a colon"):
        parse_prior(text)


def test_unknown_prior_lists_those_known():
    with pytest.raises(PriorError, match="Unknown prior 'cauchy'. Known: fan-in, laplace:SCALE, normal:SCALE"):
        parse_prior("cauchy")
