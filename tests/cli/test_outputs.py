from __future__ import annotations

import json
import os

import pytest

from wiu_pyro.cli.outputs import claim, clear, clear_leftovers, resumed_record, save_record, start_record
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.errors import OutputError
from wiu_pyro.report.folder import RunFolder, written_aside

DECIDING = {"seed": 0, "epochs": 2}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def finished(folder):
    record = start_record(RunSettings(), DECIDING)
    save_record(folder, record)
    folder.posteriors.mkdir()
    folder.posterior("mean-field").write_text("whole")
    folder.page.write_text("page")
    return folder


def test_claiming_a_fresh_folder_does_not_make_it(folder):
    claim(folder, RunSettings())
    assert not folder.path.exists()


def test_a_folder_that_holds_a_run_is_refused_with_all_three_ways_out(finished):
    with pytest.raises(OutputError, match=r"already holds a run.*--resume.*--overwrite.*--out"):
        claim(finished, RunSettings())


def test_posteriors_without_a_record_count_as_a_run(finished):
    finished.record.unlink()
    with pytest.raises(OutputError, match="already holds a run"):
        claim(finished, RunSettings())


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, below):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError, match=r"--out must be a folder, but .*run is a file"):
        claim(RunFolder(tmp_path / "run" / below), RunSettings())


def test_resume_keeps_the_record(finished):
    record = resumed_record(finished, RunSettings(resume=True), DECIDING)
    assert record["deciding"] == DECIDING
    assert finished.posterior("mean-field").read_text() == "whole"


def test_what_a_killed_run_left_unfinished_is_removed(finished):
    half = finished.posteriors / ".partial-abc.nc"
    half.write_text("half")
    clear_leftovers(finished)
    assert not half.exists()
    assert finished.posterior("mean-field").exists()


def test_resume_with_other_settings_says_which(finished):
    with pytest.raises(OutputError, match=r"--resume needs the settings of the run.*--seed was 0, now 1"):
        resumed_record(finished, RunSettings(resume=True), DECIDING | {"seed": 1})
    assert finished.posterior("mean-field").exists()


def test_resume_where_nothing_is_starts_afresh(folder):
    assert resumed_record(folder, RunSettings(resume=True), DECIDING) is None


def test_overwrite_does_not_look_at_the_old_record(finished):
    finished.record.write_text("{ cut off")
    assert resumed_record(finished, RunSettings(overwrite=True), DECIDING) is None


def test_clearing_removes_the_run_and_nothing_else(finished):
    own = finished.path / "notes.txt"
    own.write_text("mine")
    clear(finished)
    assert sorted(path.name for path in finished.path.iterdir()) == ["notes.txt", "posteriors"]
    assert list(finished.posteriors.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="--out must be a place that can be written to"):
            claim(RunFolder(tmp_path / "run"), RunSettings())
    finally:
        tmp_path.chmod(0o700)


def test_an_error_while_writing_leaves_the_old_file_and_no_half_one(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def interrupted():
        with written_aside(target) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("text", ["{ cut off", "[]", '{"other": 1}'])
def test_a_record_that_wiu_did_not_write_is_refused(folder, text):
    folder.path.mkdir()
    folder.record.write_text(text)
    with pytest.raises(OutputError, match=r"run\.json must"):
        folder.read_record()


def test_a_folder_without_a_run_is_refused(folder):
    with pytest.raises(OutputError, match=r"a run \(with a run\.json\) is needed, but .* does not exist"):
        folder.read_record()


def test_the_record_is_json_with_a_hash_of_the_deciding_settings(finished):
    record = json.loads(finished.record.read_text())
    assert len(record["settings_hash"]) == 64
    assert record["settings"]["guides"] == ["mean-field", "laplace-diag", "laplace-kfac"]
