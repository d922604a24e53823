from __future__ import annotations

import json
import subprocess
import sys

import pytest
from scipy import stats

from tests.synthetic import synthetic
from wiu_pyro.cli import main
from wiu_pyro.export.files import load, save


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return (
        save(synthetic(seed=1, converged="no").idata, folder / "mean-field.nc"),
        save(synthetic(seed=2, factorised=False).idata, folder / "laplace-kfac.nc"),
    )


def run_wiu(capsys, *arguments):
    """Run the command; return its exit code, what it printed and what it said."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_version_is_printed(capsys):
    code, out, _ = run_wiu(capsys, "--version")
    assert code == 0
    assert out.strip()[0].isdigit()


@pytest.mark.parametrize(
    "command",
    ["run", "summary", "compare", "plot", "report", "sweep", "models list", "models copy", "data list", "data get"],
)
def test_every_command_has_help_with_what_it_does(command, capsys):
    code, out, _ = run_wiu(capsys, *command.split(), "--help")
    assert code == 0
    assert f"wiu {command}" in out
    assert "--debug" in out


@pytest.mark.parametrize("arguments", [["rnu"], ["summary"], ["run", "--epochs", "many"], ["plot", "a.nc", "loss"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert run_wiu(capsys, *arguments)[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", ["['--help']", "['summary', PATH]", "['compare', PATH, PATH]", "['plot', PATH, 'loss', '-o', OUT]"]
)
def test_reading_needs_no_torch(arguments, files, tmp_path):
    program = (
        f"import sys; PATH, OUT = {str(files[0])!r}, {str(tmp_path / 'a.png')!r}\n"
        f"from wiu_pyro.cli import main; code = main({arguments})\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "heavy"), [("['--help']", ("xarray", "matplotlib", "scipy")), ("['summary', PATH]", ("matplotlib",))]
)
def test_what_a_command_does_not_use_is_not_imported(arguments, heavy, files):
    program = (
        f"import sys; PATH = {str(files[0])!r}\n"
        f"from wiu_pyro.cli import main; code = main({arguments})\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(found and str(found) or code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_summary_has_a_row_per_layer_and_says_when_not_converged(files, capsys):
    code, out, err = run_wiu(capsys, "summary", files[0])
    assert code == 0
    assert err == ""
    rows = [line.split()[0] for line in out.splitlines()[2:5]]
    assert rows == ["fc1", "fc2", "out"]
    assert "contraction_sum" in out
    assert "had not converged" in out


def test_summary_as_json_holds_every_column(files, capsys):
    code, out, _ = run_wiu(capsys, "summary", files[1], "--json")
    content = json.loads(out)
    assert code == 0
    assert [row["layer"] for row in content["layers"]] == ["fc1", "fc2", "out"]
    assert {"sd_q05", "conditional_contraction", "effective_parameters"} <= set(content["layers"][0])
    assert content["attrs"]["approximation"] == "laplace-kfac"


def test_all_columns_are_shown_when_asked_for(files, capsys):
    short = run_wiu(capsys, "summary", files[0])[1]
    every = run_wiu(capsys, "summary", files[0], "--all")[1]
    assert "sd_q05" not in short
    assert "sd_q05" in every


def test_summary_of_a_group_has_a_row_per_weight(files, capsys):
    code, out, _ = run_wiu(capsys, "summary", files[0], "--group", "layer_out", "--json")
    assert code == 0
    assert len(json.loads(out)["weights"]) == 10 * 12 + 10


def test_moments_of_a_layer_are_shown_in_closed_form(files, capsys):
    code, out, _ = run_wiu(capsys, "summary", files[0], "--group", "moments_out", "--json")
    assert code == 0
    rows = {row["weight"]: row for row in json.loads(out)["weights"]}
    assert len(rows) == 10 * 12 + 10
    data = load(files[0])["moments_out"]
    mean, sd = float(data["mean"][0, 3, 2]), float(data["sd"][0, 3, 2])
    low, high = stats.norm(mean, sd).interval(0.94)
    expected = {"mean": mean, "sd": sd, "low_3%": low, "high_97%": high}
    assert {name: rows["weight[3, 2]"][name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert rows["bias[9]"]["mean"] == pytest.approx(float(data["bias_mean"][0, 9]))


def test_a_layer_too_large_for_arviz_is_shown_by_its_moments_and_cut_short(files, capsys, monkeypatch):
    monkeypatch.setattr("wiu_pyro.cli.group_table.MOST_BY_DRAWS", 100)
    monkeypatch.setattr("wiu_pyro.cli.group_table.MOST_SHOWN", 5)
    code, out, _ = run_wiu(capsys, "summary", files[0], "--group", "layer_out")
    assert code == 0
    assert out.splitlines()[0] == "mean-field · moments_out"
    assert [line.split()[0] for line in out.splitlines()[-6:-1]] == ["weight[0,"] * 5
    assert out.splitlines()[-1] == "... and 125 more: --json prints all."


def test_a_zarr_folder_is_read_like_a_file(files, capsys, tmp_path):
    pytest.importorskip("zarr", reason="an extra: wiu_pyro[zarr]")
    folder = save(load(files[0]), tmp_path / "mean-field.zarr")
    assert run_wiu(capsys, "summary", folder) == run_wiu(capsys, "summary", files[0])
    assert run_wiu(capsys, "compare", folder, files[1])[0] == 0
    code, _, err = run_wiu(capsys, "summary", tmp_path)
    assert code == 2
    assert str(folder) in err


def test_a_summary_needs_no_arviz(files):
    code = f"""
import sys; from wiu_pyro.cli import main; main(['summary', {str(files[0])!r}])
assert 'arviz' not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("group", "hint"), [("fc1", "Did you mean 'layer_fc1'"), ("layer_fx1", "Did you mean 'layer_fc")]
)
def test_an_unknown_group_names_the_near_ones(files, capsys, group, hint):
    code, out, err = run_wiu(capsys, "summary", files[0], "--group", group)
    assert code == 2
    assert out == ""
    assert hint in err


def test_compare_puts_conditional_beside_conditional(files, capsys):
    code, out, _ = run_wiu(capsys, "compare", *files)
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.startswith("marginal_contraction"))
    assert row[2] == "–"
    assert "mean-field: Not converged" in out
    code, out, _ = run_wiu(capsys, "compare", *files, "--json")
    content = json.loads(out)
    assert len(content["layers"]) == 6
    assert {row["posterior"] for row in content["predictions"]} == {"mean-field", "laplace-kfac"}


def test_the_same_posterior_twice_is_told_apart_by_its_file(files, capsys):
    code, out, _ = run_wiu(capsys, "compare", files[0], files[0], files[1], "--json")
    assert code == 0
    assert str(files[0]) in out


def test_one_posterior_is_not_enough_to_compare(files, capsys):
    code, _, err = run_wiu(capsys, "compare", files[0])
    assert code == 2
    assert "Two or more posteriors are needed" in err


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_plot_writes_the_picture_and_prints_its_name(files, tmp_path, capsys, ending):
    target = tmp_path / f"loss{ending}"
    code, out, _ = run_wiu(capsys, "plot", files[0], "loss", "-o", target)
    assert code == 0
    assert out.strip() == str(target)
    assert target.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weight-heat", "-o", "a.png"], "Unknown kind of plot 'weight-heat'. Did you mean 'weight-heatmap'"),
        (["loss", "-o", "a.doc"], "must end in .png, .svg, .pdf, got 'a.doc'"),
        (["weight-heatmap", "-o", "a.png", "--layer", "fc9"], "Unknown layer 'fc9'"),
        (["loss", "-o", "a.png", "--layer", "fc1"], "takes no --layer"),
    ],
)
def test_a_plot_that_cannot_be_drawn_says_why_and_writes_nothing(
    files, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_wiu(capsys, "plot", files[0], *arguments)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["summary"], ["compare"], ["plot"], ["report"]])
def test_a_file_that_is_not_there_is_named(command, tmp_path, capsys):
    missing = tmp_path / "gone.nc"
    extra = {"plot": ["loss", "-o", tmp_path / "a.png"], "compare": [missing]}.get(command[0], [])
    code, _, err = run_wiu(capsys, *command, missing, *extra)
    assert code == 2
    assert "gone.nc" in err
    assert "Traceback" not in err


def test_a_truncated_file_is_refused(files, tmp_path, capsys):
    half = tmp_path / "half.nc"
    half.write_bytes(files[0].read_bytes()[:5000])
    code, _, err = run_wiu(capsys, "summary", half)
    assert code == 2
    assert "half.nc" in err


def test_a_folder_in_place_of_a_file_lists_the_posteriors_in_it(files, capsys):
    code, _, err = run_wiu(capsys, "summary", files[0].parent)
    assert code == 2
    assert "mean-field.nc" in err


def test_shipped_models_are_listed_and_copied(tmp_path, capsys):
    code, out, _ = run_wiu(capsys, "models", "list", "--json")
    assert code == 0
    assert "digits_mlp" in [row["name"] for row in json.loads(out)]
    code, out, _ = run_wiu(capsys, "models", "copy", "digits_mlp", "--to", tmp_path)
    assert code == 0
    assert "def build(" in (tmp_path / "digits_mlp.py").read_text()
    assert run_wiu(capsys, "models", "copy", "digits_mlp", "--to", tmp_path)[0] == 2
    assert "Did you mean 'digits_mlp'" in run_wiu(capsys, "models", "copy", "digit_mlp", "--to", tmp_path)[2]


def test_data_are_listed_and_bundled_ones_need_no_fetching(tmp_path, capsys):
    code, out, _ = run_wiu(capsys, "data", "list", "--data-root", tmp_path, "--json")
    here = {row["name"]: row["here"] for row in json.loads(out)}
    assert code == 0
    assert here["mnist"] == "no"
    assert here["digits"] != "no"
    assert run_wiu(capsys, "data", "get", "digits", "--data-root", tmp_path)[0] == 0
    assert "Did you mean 'mnist'" in run_wiu(capsys, "data", "get", "mnst", "--data-root", tmp_path)[2]


def test_every_kind_the_help_of_plot_shows_can_be_drawn(files, tmp_path, capsys):
    _, text, _ = run_wiu(capsys, "plot", "--help")
    examples = [line.split() for line in text.splitlines() if line.strip().startswith("wiu plot kfac.nc")]
    assert len(examples) == 2
    for words in examples:
        options = [tmp_path / "a.png" if word.endswith(".png") else word for word in words[3:]]
        assert run_wiu(capsys, "plot", files[1], *options)[0] == 0
