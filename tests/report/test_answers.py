"""Tables of several networks, kept beside a text: what is written is read again, and says the same."""

import json

import numpy as np
import pytest
import xarray as xr

from tests.synthetic import synthetic
from wiu_pyro import diagnostics
from wiu_pyro.errors import DataError, SchemaError
from wiu_pyro.export import concat
from wiu_pyro.report import findings, findings_rst, read_answers
from wiu_pyro.report.answers import ALL, TABLES, answer_tables, write_answer, write_record
from wiu_pyro.report.answers_findings import QUESTIONS

STATEMENTS = {
    "between_layers": diagnostics.between_statement,
    "within_layer": diagnostics.within_statement,
    "magnitude": diagnostics.magnitude_statement,
    "identification": diagnostics.identification_statement,
}


@pytest.fixture(scope="module")
def seeds():
    return {
        "mean-field": concat([synthetic(seed=seed).idata for seed in range(5)]),
        "laplace-kfac": concat([synthetic(seed=seed, factorised=False).idata for seed in range(5)]),
    }


@pytest.fixture(scope="module")
def tables(seeds):
    return {name: dict(answer_tables(idata)) for name, idata in seeds.items()}


@pytest.fixture(scope="module")
def folder(tables, tmp_path_factory):
    out = tmp_path_factory.mktemp("answers")
    missing = {"mean-field": {"pruning": "Nothing was pruned."}}
    for posterior, found in tables.items():
        for name, table in found.items():
            if isinstance(table, str):
                missing.setdefault(posterior, {})[name] = table
            else:
                write_answer(out / "net", table, posterior=posterior, name=name)
    write_record(
        out / "net",
        {
            "posteriors": dict.fromkeys(tables, [{"converged": True}] * 5),
            "missing": missing,
            "seeds": [0, 1, 2, 3, 4],
            "about": "A network.",
        },
    )
    return out


def test_every_table_or_a_reason_is_there(tables):
    for found in tables.values():
        assert list(found) == list(TABLES)
        assert all(isinstance(table, xr.Dataset) or len(table) > 20 for table in found.values())


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("posterior", ["mean-field", "laplace-kfac"])
def test_a_saved_table_says_what_the_fresh_one_says(name, posterior, tables, folder):
    saved = read_answers(folder).table("net", name, posterior)
    assert STATEMENTS[name](saved) == STATEMENTS[name](tables[posterior][name])


def test_numbers_are_kept_in_single_precision(tables, folder):
    fresh, saved = tables["mean-field"]["between_layers"], read_answers(folder).tables("net", "between_layers")
    np.testing.assert_allclose(saved["mean-field"]["difference"], fresh["difference"], rtol=1e-6)
    assert saved["mean-field"]["difference"].dtype == np.float32
    assert saved["mean-field"]["pair"].values.tolist() == fresh["pair"].values.tolist()


def test_what_is_missing_is_refused_with_the_reason(folder):
    answers = read_answers(folder)
    assert answers.missing("net", "pruning") == {"mean-field": "Nothing was pruned."}
    with pytest.raises(DataError, match=r"has no table 'pruning'. Nothing was pruned."):
        answers.table("net", "pruning", "mean-field")
    with pytest.raises(DataError, match=r"has no table 'magnitud'. Did you mean 'magnitude'"):
        answers.table("net", "magnitud", "mean-field")
    with pytest.raises(DataError, match=r"There are no tables of 'nett'. Did you mean 'net'"):
        answers.record("nett")


def test_a_folder_without_tables_and_a_broken_file_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="A folder that wiu answers wrote is needed"):
        read_answers(tmp_path)
    (tmp_path / "net" / "vi").mkdir(parents=True)
    (tmp_path / "net" / "vi" / "magnitude.nc.gz").write_bytes(b"nothing")
    write_record(tmp_path / "net", {"posteriors": {"vi": []}})
    with pytest.raises(SchemaError, match="cannot be read"):
        read_answers(tmp_path).table("net", "magnitude", "vi")


def test_the_same_table_gives_the_same_bytes(tables, tmp_path):
    table = tables["mean-field"]["layer_uncertainty"]
    first, again = (write_answer(tmp_path, table, posterior=ALL, name=name) for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_findings_are_openings_of_the_statements_by_those_who_say_them(tables, folder):
    found = findings(read_answers(folder), "weight_size")
    assert {name for one in found for name in one.posteriors} == {"mean-field", "laplace-kfac"}
    for one in found:
        whole = diagnostics.magnitude_statement(tables[one.posteriors[0]]["magnitude_conditional"])
        assert whole.startswith(one.text)
    agreed = findings(read_answers(folder), "between_layers", "net")[0]
    assert agreed.posteriors == ("all posteriors",)
    with pytest.raises(DataError, match=r"Unknown question 'within_layers'. Did you mean 'within_layer'"):
        findings(read_answers(folder), "within_layers")


def test_only_the_whole_text_marks_what_had_not_converged(tables, tmp_path):
    unsettled = tables["mean-field"]["between_layers"].assign_attrs(converged="no")
    write_answer(tmp_path / "net", unsettled, posterior="mean-field", name="between_layers")
    write_record(tmp_path / "net", {"posteriors": {"mean-field": [{"converged": False}] * 5}, "seeds": [0, 1, 2, 3, 4]})
    marked, brief = (findings(read_answers(tmp_path), "between_layers", brief=brief) for brief in (False, True))
    assert [one.posteriors for one in marked] == [("mean-field (not converged)",)]
    assert [one.posteriors for one in brief] == [("mean-field",)]
    assert [one.text for one in marked] == [one.text for one in brief]


def test_brief_leaves_out_who_found_nothing(tables, tmp_path):
    table = tables["mean-field"]["between_layers"]
    unknown = table.assign(seeds_low=table["seeds_low"] * np.nan)
    for posterior, one in {"knows": table, "knows-not": unknown}.items():
        write_answer(tmp_path / "net", one, posterior=posterior, name="between_layers")
    write_record(tmp_path / "net", {"posteriors": dict.fromkeys(("knows", "knows-not"), []), "seeds": [0, 1, 2, 3, 4]})
    whole, brief = (findings(read_answers(tmp_path), "between_layers", brief=brief) for brief in (False, True))
    assert {name for one in whole for name in one.posteriors} >= {"knows", "knows-not"}
    assert "knows-not" not in {name for one in brief for name in one.posteriors}


def test_the_text_has_every_question_with_a_link_to_its_page(folder):
    text = findings_rst(read_answers(folder))
    for page, question in QUESTIONS.items():
        assert f"**{question}** :doc:`The answer with figures </tutorials/{page}>`" in text
    assert "*A network*" in text
    assert json.loads((folder / "net" / "runs.json").read_text())["seeds"] == [0, 1, 2, 3, 4]
