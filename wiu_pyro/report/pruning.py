"""One of the page's questions: how many weights can go. Read from what `wiu run --prune` left in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, plots
from wiu_pyro.diagnostics.pruning_statement import NAMES
from wiu_pyro.report.captions import opening
from wiu_pyro.report.content import FigureGroup, Section, Table
from wiu_pyro.report.figures import embedded
from wiu_pyro.report.numbers import percent

__all__ = ["pruning_section"]

ALT = "Curves of the error against the share of weights removed, by criterion; beside it, one layer pruned alone"
NOTE = (
    "Weights go by their rank under a criterion, those of the lowest first; biases stay. The network left is that of "
    "the posterior means. Grey: the error of the unpruned network, and above it the margin of the test."
)


def pruning_section(tables: Mapping[str, xr.Dataset]) -> Section:
    """Return how many weights can go: findings, figures, tables.

    Parameters
    ----------
    tables : mapping of str to Dataset
        What `wiu_pyro.interventions.prune` returned, by posterior.

    Returns
    -------
    Section
        Empty where nothing was pruned.
    """
    title = "How many weights can go?"
    if not tables:
        return Section("pruning", title)
    intro, closing, figures = [], [], []
    for name, table in tables.items():
        said = diagnostics.pruning_statement(table)
        intro.append(f"{name}: {said}")
        figures.append(embedded(plots.pruning(table), name, caption=opening(said), alt=ALT))
        if table.attrs.get("left_out"):
            closing.append(f"Not for {name}: {table.attrs['left_out']}")
    groups = (FigureGroup("", tuple(figures), NOTE),)
    rows = tuple(_table(name, table) for name, table in tables.items())
    return Section("pruning", title, intro=tuple(intro), tables=rows, figure_groups=groups, closing=tuple(closing))


def _table(name: str, table: xr.Dataset) -> Table:
    """Return the rise of the error beside the unpruned network, by criterion and share, with its interval."""
    prefix = "seeds_" if "seeds_error_difference_low" in table else ""
    ranking = str(table["ranking"].values[0])
    one = table.sel(network="mean", ranking=ranking)
    shares = table["sparsity"].values.astype(float).tolist()
    rows = []
    for procedure in table["procedure"].values.tolist():
        for criterion in table["criterion"].values.tolist():
            place = {"procedure": procedure, "criterion": criterion}
            label = NAMES.get(criterion, criterion) + ("" if procedure == "one_shot" else f", {procedure}")
            ends = [one[f"{prefix}error_difference{end}"].sel(place) for end in ("", "_low", "_high")]
            rows.append((label.replace("_", " "), *(_cell(ends, share) for share in shares)))
    base = float(one["unpruned_error"].mean())
    notes = (
        f"Rise of the error in percentage points; unpruned it is {percent(base, 2)}. In small print: "
        f"{percent(float(table.attrs['level']), 0)} intervals, together over the shares.",
    )
    return Table(name, ("removed", *(f"{100 * share:g} %" for share in shares)), tuple(rows), notes)


def _cell(ends: Sequence[xr.DataArray], share: float) -> str:
    values = [float(end.sel(sparsity=share).mean()) for end in ends]
    several = "chain" in ends[0].dims
    interval = "" if several or not np.isfinite(values).all() else f"\n{_points(values[1])} to {_points(values[2])}"
    return f"{_points(values[0])}{interval}"


def _points(value: float) -> str:
    return f"{round(100 * value, 2) + 0:+.2f}".replace("-", "−")
