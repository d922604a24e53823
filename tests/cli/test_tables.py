from __future__ import annotations

import json

from wiu_pyro.cli.tables import print_json, print_table, text_table

ROWS = [
    {"layer": "features.0", "weights": 314_000, "contraction": 0.123456, "structure": "kfac"},
    {"layer": "out", "weights": 10, "contraction": float("nan"), "structure": "diagonal"},
]


def test_without_a_width_every_row_is_one_line():
    lines = text_table(ROWS).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["features.0", "314,000", "0.123", "kfac"]


def test_on_a_narrow_terminal_columns_move_to_blocks_that_repeat_the_row_names():
    text = text_table(ROWS, width=25)
    assert max(map(len, text.splitlines())) <= 25
    assert text.count("features.0") == 3
    assert "314,000" in text
    assert "0.123" in text


def test_a_column_wider_than_the_terminal_is_kept_whole():
    assert "features.0" in text_table([{"layer": "features.0", "about": "x" * 50}], width=20)
    assert "x" * 50 in text_table([{"layer": "features.0", "about": "x" * 50}], width=20)


def test_what_is_missing_is_a_dash():
    assert text_table(ROWS).splitlines()[2].split() == ["out", "10", "–", "diagonal"]


def test_no_rows_are_said_to_be_none():
    assert text_table([], title="layers") == "layers\n(nothing)"


def test_piped_tables_are_never_broken(capsys):
    print_table([{"a": "x" * 300, "b": "y" * 300}])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_has_null_for_what_is_not_finite(capsys):
    print_json({"kl": float("nan"), "snr": float("inf"), "converged": True})
    assert json.loads(capsys.readouterr().out) == {"kl": None, "snr": None, "converged": True}
