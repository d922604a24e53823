"""The page itself: all sections put together, rendered by the template, written in one move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from wiu_pyro.report.agreement import agreement_section
from wiu_pyro.report.content import Alert, FigureGroup, Section
from wiu_pyro.report.differences import between_section, within_section
from wiu_pyro.report.figures import figure_section, side_by_side
from wiu_pyro.report.folder import PRUNING, STOCHASTIC_LAYERS, RunFolder, written_aside
from wiu_pyro.report.layer_section import layer_section
from wiu_pyro.report.more import more_section
from wiu_pyro.report.posterior import Posterior, convergence_sentence
from wiu_pyro.report.prediction import declined_section, prediction_section
from wiu_pyro.report.pruning import pruning_section
from wiu_pyro.report.run_answer import answer
from wiu_pyro.report.setup import convergence_section, coverage_section, reproduce_section, setup_section
from wiu_pyro.report.six_answers import network_figure, six_answers
from wiu_pyro.report.stochastic import stochastic_section
from wiu_pyro.report.training import training_section
from wiu_pyro.report.weight_questions import identification_section, magnitude_section

__all__ = ["render", "write_report"]


def write_report(folder: Path, posteriors: Sequence[Posterior], *, missing: Mapping[str, str] | None = None) -> Path:
    """Write ``DIR/report.html``: one file with everything in it.

    Parameters
    ----------
    folder : Path
        Folder of a run, with its ``run.json``.
    posteriors : sequence of Posterior
        Those that could be read, in the order they are to be shown.
    missing : mapping of str to str, optional
        Posteriors that were asked for and are not there, with the reason.

    Returns
    -------
    Path
        The page.

    See Also
    --------
    RunFolder.read_record : Refuses a folder that holds no run.
    """
    run = RunFolder(Path(folder))
    names = [posterior.name for posterior in posteriors]
    pruned, stochastic = (run.read_interventions(kind, names) for kind in (PRUNING, STOCHASTIC_LAYERS))
    text = render(posteriors, run.read_record(), missing=missing, pruned=pruned, stochastic=stochastic)
    with written_aside(run.page) as aside:
        aside.write_text(text, encoding="utf-8")
    return run.page


def render(
    posteriors: Sequence[Posterior],
    record: Mapping[str, Any],
    *,
    missing: Mapping[str, str] | None = None,
    pruned: Mapping[str, xr.Dataset] | None = None,
    stochastic: Mapping[str, xr.Dataset] | None = None,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    posteriors : sequence of Posterior
        May be empty: the page then says what is missing.
    record : mapping
        Content of ``run.json``; what it lacks is left out.
    missing : mapping of str to str, optional
        Reason by posterior.
    pruned : mapping of str to Dataset, optional
        What `wiu_pyro.interventions.prune` returned, by posterior.
    stochastic : mapping of str to Dataset, optional
        What `wiu_pyro.interventions.stochastic_layers` returned, by posterior.

    Returns
    -------
    str
    """
    missing = dict(missing or {})
    environment = Environment(
        loader=PackageLoader("wiu_pyro.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    heading, subtitle = _titles(posteriors, record)
    return environment.get_template("report.html.jinja").render(
        title=f"{heading} · where is the uncertainty?",
        heading=heading,
        subtitle=subtitle,
        style=Markup(files("wiu_pyro.report").joinpath("templates/report.css").read_text(encoding="utf-8")),
        version=_version(),
        written_at=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        answer=answer(posteriors),
        network=network_figure(posteriors),
        cards=six_answers(posteriors, pruned=pruned, stochastic=stochastic),
        alerts=_alerts(posteriors, record, missing),
        sections=[
            Section("answer", "The answer"),
            *([Section("questions", "Six questions")] if posteriors else []),
            *_sections(
                posteriors, record, missing, (pruning_section(pruned or {}), stochastic_section(stochastic or {}))
            ),
        ],
    )


def _unbroken(value: Any) -> Any:
    """Keep a percent sign on the line of its number."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def _version() -> str:
    try:
        return version("wiu_pyro")
    except PackageNotFoundError:
        return "(not installed)"


def _titles(posteriors: Sequence[Posterior], record: Mapping[str, Any]) -> tuple[str, str]:
    attrs = posteriors[0].attrs if posteriors else {}
    model = record.get("model", {}).get("name") or attrs.get("model_name") or "A network"
    data = record.get("data", {}).get("name") or attrs.get("data_name") or "its data"
    names = [posterior.name for posterior in posteriors]
    if not names:
        return f"{model} on {data}", "No posterior of this run can be read."
    number = "One posterior" if len(names) == 1 else f"{len(names)} posteriors"
    return f"{model} on {data}", f"{number} over the network's weights: {', '.join(names)}."


def _alerts(posteriors: Sequence[Posterior], record: Mapping[str, Any], missing: Mapping[str, str]) -> list[Alert]:
    unsettled: dict[str, list[str]] = {}  # Laplace posteriors share the fit of one point estimate
    for posterior in posteriors:
        if posterior.converged == "no":
            unsettled.setdefault(convergence_sentence(posterior.attrs), []).append(posterior.name)
    alerts = [
        Alert(
            f"{', '.join(names)}:",
            f"{sentence} Such uncertainties show a stage of training: do not rely on them. Train longer with --epochs.",
        )
        for sentence, names in unsettled.items()
    ]
    alerts += [Alert(f"{name} is missing:", reason) for name, reason in missing.items()]
    if not record.get("finished", True):
        alerts.append(Alert("The run was cut off.", "Go on with it: the same command with --resume."))
    return alerts


def _sections(
    posteriors: Sequence[Posterior],
    record: Mapping[str, Any],
    missing: Mapping[str, str],
    interventions: Sequence[Section],
) -> list[Section]:
    sections = [setup_section(posteriors, record)]
    if posteriors:
        sections += [
            _with_figures(layer_section(posteriors), side_by_side(posteriors)),
            between_section(posteriors),
            within_section(posteriors),
            training_section(posteriors),
            magnitude_section(posteriors),
            identification_section(posteriors),
            *interventions,
            agreement_section(posteriors),
            figure_section(posteriors),
            prediction_section(posteriors),
            declined_section(posteriors),
            more_section(posteriors),
            convergence_section(posteriors),
        ]
    sections += [coverage_section(posteriors, missing), reproduce_section(posteriors, record)]
    return [section for section in sections if not section.empty]


def _with_figures(section: Section, group: FigureGroup) -> Section:
    return replace(section, figure_groups=(*section.figure_groups, group)) if group.figures else section
