from __future__ import annotations

import os
import warnings

import pytest

from wiu_pyro.cli.console import guarded
from wiu_pyro.errors import DataError


def raising(error):
    def command(arguments):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no"), 2),
        (ValueError("no"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(0), 0),
        (SystemExit(None), 0),
        (SystemExit(2), 2),
        (SystemExit(130), 130),
    ],
)
def test_exit_code_tells_bad_input_from_a_mistake_of_ours(error, code):
    assert guarded(raising(error), []) == code


def test_bad_input_is_one_message_on_stderr_without_a_traceback(capsys):
    guarded(raising(DataError("--epochs must be at least 1, got 0.")), ["run"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Error: --epochs must be at least 1, got 0.\n"


def test_an_unexpected_error_points_to_debug(capsys):
    guarded(raising(ValueError("boom")), ["run"])
    err = capsys.readouterr().err
    assert "Unexpected error: ValueError: boom" in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [DataError("no"), ValueError("no")])
def test_debug_shows_the_traceback(error, capsys):
    guarded(raising(error), ["run", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_warnings_are_one_line_each(capsys):
    def command(arguments):
        warnings.simplefilter("always")
        warnings.warn("layer 'bn' is\n not covered", UserWarning, stacklevel=1)

    assert guarded(command, []) == 0
    assert capsys.readouterr().err == "Warning: layer 'bn' is not covered\n"


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_give_up_their_core_unless_the_user_wants_otherwise(before, after, monkeypatch):
    """Spinning threads make a small network ten times as slow on a machine with other work."""
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    found = []
    guarded(lambda arguments: found.append(os.environ["OMP_WAIT_POLICY"]), [])
    assert found == [after]
