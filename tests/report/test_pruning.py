"""The page's section on pruning, and how it is found in a run's folder."""

import pytest

from tests.pruned import pruned
from wiu_pyro.errors import SchemaError
from wiu_pyro.report import page
from wiu_pyro.report.folder import PRUNING, RunFolder
from wiu_pyro.report.pruning import pruning_section


def test_tables_are_read_from_the_folder_by_posterior_and_what_was_not_pruned_is_left_out(tmp_path):
    run = RunFolder(tmp_path)
    path = run.intervention(PRUNING, "mean-field")
    assert path == tmp_path / "interventions" / "pruning" / "mean-field.nc"
    path.parent.mkdir(parents=True)
    pruned().to_netcdf(path, engine="h5netcdf")
    found = run.read_interventions(PRUNING, ["mean-field", "laplace-kfac"])
    assert list(found) == ["mean-field"]
    assert found["mean-field"].identical(pruned())


def test_a_broken_table_is_an_error_that_names_the_file(tmp_path):
    path = RunFolder(tmp_path).intervention(PRUNING, "mean-field")
    path.parent.mkdir(parents=True)
    path.write_text("no netCDF")
    with pytest.raises(SchemaError, match=r"mean-field\.nc cannot be read"):
        RunFolder(tmp_path).read_interventions(PRUNING, ["mean-field"])


def test_section_says_what_was_found_and_shows_it_by_criterion_and_share():
    table = pruned().assign_attrs(left_out="brain_surgeon: no data")
    section = pruning_section({"mean-field": table})
    assert section.intro[0].startswith("mean-field: Removable in one shot")
    assert section.closing == ("Not for mean-field: brain_surgeon: no data",)
    shown = section.tables[0]
    assert shown.columns == ("removed", "50 %", "90 %", "95 %", "99 %")
    rows = {row[0]: row[1:] for row in shown.rows}
    assert rows["size"][2] == "+1.00\n+0.95 to +1.05"
    assert "unpruned it is 2.00 %" in shown.notes[0]
    assert len(section.figure_groups[0].figures) == 1


def test_several_networks_without_seeds_enough_show_means_and_no_interval():
    rows = pruning_section({"mean-field": pruned(chains=2)}).tables[0].rows
    assert rows[1][3] == "+1.00"


def test_rows_of_other_procedures_are_named():
    rows = pruning_section({"mean-field": pruned(fine_tuned=True)}).tables[0].rows
    assert "size, fine tuned" in [row[0] for row in rows]


def test_page_has_the_section_only_where_something_was_pruned():
    assert pruning_section({}).empty
    assert "How many weights can go?" not in page.render([], {})
