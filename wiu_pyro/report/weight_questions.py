"""Two of the page's questions: what a weight's size has to do with its uncertainty, and which stay unidentified."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.errors import WiuError
from wiu_pyro.report.content import Section
from wiu_pyro.report.figures import drawn, figure_group
from wiu_pyro.report.more import diagnostic_tables
from wiu_pyro.report.posterior import Posterior

__all__ = ["identification_section", "magnitude_section"]


def magnitude_section(posteriors: Sequence[Posterior]) -> Section:
    """Return how the sd of the weights depends on their size: findings, tables, figures.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where no posterior can answer.
    """
    title = "What has the size of a weight to do with its uncertainty?"
    return _section("magnitude", title, say=diagnostics.magnitude_statement, posteriors=posteriors)


def identification_section(posteriors: Sequence[Posterior]) -> Section:
    """Return which weights, units and layers the data left at the prior: findings, tables, figures.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where no posterior can answer.
    """
    title = "Which weights did the data leave at the prior?"
    return _section("identification", title, say=diagnostics.identification_statement, posteriors=posteriors)


def _section(name: str, title: str, *, say: Callable[[xr.Dataset], str], posteriors: Sequence[Posterior]) -> Section:
    intro = []
    for posterior in posteriors:
        try:
            intro.append(f"{posterior.name}{posterior.mark}: {say(posterior.asked(name))}")
        except WiuError:
            continue  # its table says why
    if not intro:
        return Section(name, title)
    group = figure_group(name, [drawn(name, posterior) for posterior in posteriors])
    tables = tuple(diagnostic_tables(name, posteriors))
    return Section(name, title, intro=tuple(intro), tables=tables, figure_groups=(group,) if group.figures else ())
