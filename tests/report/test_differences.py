"""The page's sections on differences between and within layers: findings, tables and figures from the same figures."""

import numpy as np
import pytest

from tests.planted import PlantedLayer, planted
from tests.synthetic import LayerSpec, synthetic
from wiu_pyro import diagnostics
from wiu_pyro.report import Posterior
from wiu_pyro.report.differences import between_section, within_section
from wiu_pyro.report.numbers import number

SMALL = (LayerSpec("fc1", (24, 20), 0.3), LayerSpec("out", (4, 24), 0.8))
FIVE = Posterior.read("mean-field", synthetic(layers=SMALL, num_chains=5, dead_inputs=(0, 7)).idata)
ONE = Posterior.read("laplace-diag", synthetic(layers=SMALL, dead_inputs=(), converged="no").idata)


def test_each_posterior_has_its_finding_its_table_and_its_figure():
    section = between_section([FIVE, ONE])
    said = diagnostics.between_statement(diagnostics.between_layers(FIVE.idata))
    assert section.intro[0] == f"mean-field: {said}"
    assert section.intro[1].startswith("laplace-diag (not converged): Within this one network")
    assert [table.title for table in section.tables] == ["mean-field", "laplace-diag (not converged)"]
    (group,) = section.figure_groups
    assert [figure.name for figure in group.figures] == ["mean-field", "laplace-diag (not converged)"]
    assert group.figures[0].caption == said.split(". ")[0] + "."
    assert group.figures[0].alt.startswith("Differences between the layers")


def test_a_pair_stands_with_its_differences_and_their_intervals():
    table = diagnostics.between_layers(FIVE.idata)
    (row,) = between_section([FIVE]).tables[0].rows
    one = table.sel(metric="contraction").isel(pair=0)
    ends = f"{number(float(one['seeds_low']))} to {number(float(one['seeds_high']))}"
    assert row[:2] == ("fc1 − out", f"{number(float(one['difference']))}\n{ends}")
    assert row[-2] == number(float(table["cliffs_delta"].sel(quantity="contraction").mean()))
    assert "Bonferroni" in between_section([FIVE]).tables[0].notes[0]


def test_of_many_pairs_the_table_holds_those_furthest_apart_and_says_so():
    rng = np.random.default_rng(0)
    layers = {f"l{i}": PlantedLayer(np.exp(rng.normal(-1 - 0.1 * i, 0.1, size=(1, 4, 5)))) for i in range(9)}
    table = between_section([Posterior.read("many", planted(layers))]).tables[0]
    assert len(table.rows) == 30
    assert "The 30 of 36 pairs that are furthest apart weight by weight." in table.notes


def test_a_layer_stands_with_its_shares_and_its_dead_units():
    table = diagnostics.within_layer(FIVE.idata).sel(layer="fc1", quantity="log_sd_to_prior")
    section = within_section([FIVE])
    assert section.tables[0].columns == (
        "layer", "between outputs", "between inputs", "from weight to weight", "dead outputs", "dead inputs",
    )  # fmt: skip
    row = section.tables[0].rows[0]
    share, low, high = (
        100 * float(v.sel(part="input").mean()) for v in (table["share"], table["share_low"], table["share_high"])
    )
    assert row[2] == f"{share:.0f} %\n{low:.0f} % to {high:.0f} %"
    assert row[-2:] == ("0", "2")
    assert section.intro[0].startswith("mean-field: The largest part of the spread of log sd")


@pytest.mark.parametrize("section", [between_section, within_section])
def test_a_posterior_that_cannot_answer_is_named_with_the_reason(section):
    scale = Posterior.read("scales", planted({"norm": PlantedLayer(np.full((1, 30), 0.5))}))
    found = section([FIVE, scale])
    assert [table.title for table in found.tables] == ["mean-field"]
    assert found.closing[0].startswith("Not for scales: ")
    assert section([scale]).empty
