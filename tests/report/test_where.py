"""The layer with the most uncertainty is read off the saved comparison, and said with its figures."""

import pytest
import xarray as xr

from wiu_pyro.report import read_answers, where_rst
from wiu_pyro.report.answers import ALL, write_answer, write_record

NAN = float("nan")


@pytest.fixture
def said(tmp_path):
    def say(**rows: list[float]) -> str:
        values = [[1 - share for share in row] for row in rows.values()]
        coords = {"posterior": list(rows), "layer": ["conv1", "fc_1", "fc2"]}
        table = xr.Dataset({"conditional_contraction": (("posterior", "layer"), values)}, coords=coords)
        write_answer(tmp_path / "net", table, posterior=ALL, name="compare")
        record = {"posteriors": dict.fromkeys(rows, []), "seeds": [0], "about": "A network."}
        write_record(tmp_path / "net", record)
        return where_rst(read_answers(tmp_path))

    return say


def test_posteriors_that_agree_are_one_sentence(said):
    text = said(kfac=[0.1, 0.9, 0.4], diagonal=[0.2, 0.8, 0.3])
    assert "greatest in 'fc_1', and least in 'conv1' (by all of kfac, diagonal)." in text.replace("\\", "")


def test_posteriors_that_differ_are_each_quoted(said):
    text = said(kfac=[0.1, 0.9, 0.4], diagonal=[0.9, 0.8, 0.3]).replace("\\", "")
    assert "in 'fc_1', and least in 'conv1' (by kfac); in 'conv1', and least in 'fc2' (by diagonal)." in text


def test_each_share_is_a_cell_and_the_greatest_is_bold(said):
    text = said(kfac=[0.104, 0.896, NAN])
    assert text.index("- 10 %") < text.index("- **90 %**") < text.index("- –")


def test_a_posterior_that_cannot_tell_layers_apart_has_no_row(said):
    text = said(kfac=[0.1, 0.9, 0.4], last=[NAN, NAN, 0.4], ensemble=[NAN, NAN, NAN])
    assert "kfac" in text
    assert "last" not in text
    assert "ensemble" not in text


def test_a_network_without_a_comparison_is_left_out(tmp_path):
    write_record(tmp_path / "net", {"posteriors": {}, "seeds": [0]})
    assert where_rst(read_answers(tmp_path)) == ""
