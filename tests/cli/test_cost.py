from __future__ import annotations

import json

import pytest

from wiu_pyro.cli import main


def run_wiu(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.mark.slow
def test_cost_is_printed_for_each_laplace_guide_and_nothing_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, said = run_wiu(capsys, "cost", "--guides", "laplace-kfac,laplace-full,mean-field")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("fc")] == [
        ["fc1", "kfac"],
        ["fc2", "kfac"],
    ]
    assert "all layers  full               4,810" in out
    assert "mean-field: its cost is that of training" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cost_as_json_has_plain_numbers(capsys):
    code, out, _ = run_wiu(capsys, "cost", "--guides", "laplace-diag", "--json")
    found = json.loads(out)["laplace-diag"]
    assert code == 0
    assert found["memory_bytes"] == 16 * 4810
    assert found["fits"] is True
    assert [layer["name"] for layer in found["layers"]] == ["fc1", "fc2"]


def test_unknown_guide_is_bad_input(capsys):
    code, _, said = run_wiu(capsys, "cost", "--guides", "laplace-ful")
    assert code == 2
    assert "Did you mean 'laplace-full'" in said
