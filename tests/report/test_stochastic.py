"""The page's question whether the last layer is enough: from the table in the run's folder to the section."""

from __future__ import annotations

import pytest

from tests.stochastic_tables import stochastic_table
from wiu_pyro.errors import SchemaError
from wiu_pyro.report import render
from wiu_pyro.report.folder import STOCHASTIC_LAYERS, RunFolder
from wiu_pyro.report.stochastic import stochastic_section


def test_section_says_what_was_found_and_tabulates_sets_and_effects():
    section = stochastic_section({"laplace-kfac": stochastic_table(difference=0.03, shapley=(0.5, 0.3, 0.2))})
    assert section.intro[0].startswith("laplace-kfac: With the last layer 'fc3' alone")
    sets, effects = section.tables
    rows = {row[0]: row[1:] for row in sets.rows}
    assert rows["only fc3, restricted"][:2] == ("20 %\n19 % to 21 %", "0.0300\n0.0200 to 0.0400")
    assert rows["only fc3, refitted"][1] == "0.0800\n0.0700 to 0.0900"
    assert rows["all"][:2] == ("100 %", "0")
    assert effects.rows[0] == ("fc1, variance of the probability", *["50 %\n48 % to 52 %"] * 3)
    assert [len(group.figures) for group in section.figure_groups] == [1, 1]
    page = render([], {}, stochastic={"laplace-kfac": stochastic_table()})
    assert "Is the last layer enough?" not in page  # without a posterior there is nothing to answer


def test_nothing_is_shown_where_there_is_no_table_and_little_of_one_layer():
    assert stochastic_section({}).empty
    section = stochastic_section({"last": stochastic_table().isel(layer=[2])})
    assert not section.tables
    assert "nothing to compare it with" in section.intro[0]


def test_tables_are_read_from_the_folder_and_a_broken_one_is_named(tmp_path):
    run = RunFolder(tmp_path)
    path = run.intervention(STOCHASTIC_LAYERS, "laplace-kfac")
    path.parent.mkdir(parents=True)
    stochastic_table().to_netcdf(path, engine="h5netcdf")
    assert list(run.read_interventions(STOCHASTIC_LAYERS, ["laplace-kfac", "mean-field"])) == ["laplace-kfac"]
    path.write_text("no file of this kind")
    with pytest.raises(SchemaError, match="A table of wiu stochastic-layers is needed"):
        run.read_interventions(STOCHASTIC_LAYERS, ["laplace-kfac"])
