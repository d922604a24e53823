"""The page's section on agreement: the statement, the table and the figure of the same figures."""

from tests.diagnostics.test_agreement import planted_case
from tests.synthetic import synthetic
from wiu_pyro import diagnostics
from wiu_pyro.report import Posterior
from wiu_pyro.report.agreement import agreement_section
from wiu_pyro.report.numbers import number


def read(idatas):
    return [Posterior.read(name, idata) for name, idata in idatas.items()]


def test_section_says_what_the_statement_says_and_takes_markov_chains_for_the_reference():
    idatas, reference = planted_case()
    section = agreement_section(read({"nuts": reference} | idatas))
    table = diagnostics.agreement(idatas | {"nuts": reference}, "nuts")
    assert section.intro == (diagnostics.agreement_statement(table),)
    row = next(row for row in section.tables[0].rows if row[:3] == ("bad ~ nuts", "fc", "marginal"))
    one = table.sel(pair="bad ~ nuts", layer="fc", kind="marginal")
    ends = (number(float(one[f"weight_rank_{end}"])) for end in ("low", "high"))
    assert row[3] == f"{number(float(one['weight_rank']))}\n{' to '.join(ends)}"
    assert section.figure_groups[0].figures[0].alt.startswith("Rank correlations")


def test_one_posterior_has_no_section_and_others_of_another_network_say_why():
    idatas, _ = planted_case()
    assert agreement_section(read(idatas)[:1]).empty
    other = Posterior.read("other", synthetic().idata)
    assert "over the same layers" in agreement_section([*read(idatas), other]).closing[0]
