"""The page's section on the training: findings, figures and tables from what the diagnostics computed."""

from __future__ import annotations

from tests.recorded import recorded
from tests.report.pictures import unpictured
from tests.synthetic import synthetic
from wiu_pyro import diagnostics, schema
from wiu_pyro.export.container import build
from wiu_pyro.report import Posterior, render
from wiu_pyro.report.training import training_section

TIMES = {"fc1": 4.0, "fc2": 12.0, "out": 100.0}


def posterior(name="mean-field", **options):
    return Posterior.read(name, recorded(TIMES, noise=0.002, **options))


def test_the_finding_the_figures_and_the_epochs_stand_together():
    one = posterior()
    table = diagnostics.convergence(one.idata)
    section = training_section([one])
    assert section.intro == (f"mean-field: {diagnostics.convergence_statement(table)}",)
    assert [len(group.figures) for group in section.figure_groups] == [1, 1]
    (cells,) = section.tables
    row = table.sel(layer="fc2")
    ends = [f"{float(row[f'converged_epoch_{end}']):.3g}" for end in ("low", "high")]
    assert cells.rows[1][:2] == ("fc2", f"{float(row['converged_epoch']):.3g}\n{ends[0]} to {ends[1]}")
    assert cells.rows[2][1] == "never\nnever to never"


def test_over_seeds_the_interval_is_theirs(monkeypatch):
    unpictured(monkeypatch)
    one = posterior(chains=5)
    row = diagnostics.convergence(one.idata).sel(layer="fc1")
    ends = [f"{float(row[f'seeds_converged_epoch_{end}']):.3g}" for end in ("low", "high")]
    assert training_section([one]).tables[0].rows[0][1].endswith(f"\n{ends[0]} to {ends[1]}")


def test_posteriors_around_one_point_estimate_show_its_training_once():
    section = training_section([posterior("laplace-diag"), posterior("laplace-kfac"), posterior("other", seed=3)])
    assert [text.split(":")[0] for text in section.intro] == ["laplace-diag, laplace-kfac", "other"]
    assert [table.title for table in section.tables] == ["laplace-diag, laplace-kfac", "other"]
    assert [figure.name for figure in section.figure_groups[0].figures] == ["laplace-diag, laplace-kfac", "other"]


def test_fits_that_were_not_tracked_leave_no_section_or_a_line():
    whole = recorded(TIMES)
    groups = {name: schema.dataset(whole, name) for name in schema.groups(whole)}
    groups["training"] = groups["training"][["loss"]]
    plain = Posterior.read("plain", build(groups))
    assert training_section([plain]).empty
    assert training_section([plain, posterior()]).closing[0].startswith("Not for plain: Figures of the layers through")


def test_a_training_too_short_to_judge_is_said_to_be_that():
    section = training_section([posterior(epochs=8, full=6)])
    assert "was not assessed" in section.intro[0]
    assert {row[1] for row in section.tables[0].rows} == {"–"}


def test_the_page_has_the_section(monkeypatch):
    unpictured(monkeypatch)
    page = render([Posterior.read("mean-field", synthetic().idata)], {})
    assert "How did the uncertainty move during the training?" in page
