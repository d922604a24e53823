"""One of the page's questions: how did the uncertainty move during the training, and when had a layer converged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, plots
from wiu_pyro.errors import WiuError
from wiu_pyro.report.captions import ALTS, caption
from wiu_pyro.report.content import Figure, Section, Table
from wiu_pyro.report.figures import embedded, figure_group
from wiu_pyro.report.numbers import MISSING, percent
from wiu_pyro.report.posterior import Posterior

__all__ = ["training_section"]

QUANTITIES = {"mean": "size of the means", "sd": "sd", "kl": "KL a weight"}
NOTE = (
    "Epochs from which on each stays within the tolerance of its end at the full learning rate; in small print the "
    "interval of the last of them. What moved while the learning rate fell is relative to that end."
)


def training_section(posteriors: Sequence[Posterior]) -> Section:
    """Return when each layer had converged and what early stopping would have done: findings, figures, tables.

    Posteriors around one point estimate share its training: it is shown once for all of them.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where no fit kept figures of its layers.
    """
    said: dict[str, list[str]] = {}
    rows: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    figures: dict[str, list[Figure | None]] = {"evolution": [], "convergence": []}
    closing = []
    for posterior in posteriors:
        who = f"{posterior.name}{posterior.mark}"
        try:
            table = posterior.asked("convergence")
        except WiuError as error:
            closing.append(f"Not for {who}: {error}")
            continue
        said.setdefault(diagnostics.convergence_statement(table), []).append(who)
        rows.setdefault(_rows(table), []).append(who)
        for kind, source in (("evolution", posterior.idata), ("convergence", table)):
            drawing, seen = getattr(plots, kind)(source), caption(kind, posterior)
            figures[kind].append(embedded(drawing, who, caption=seen, alt=ALTS[kind]))
    title = "How did the uncertainty move during the training?"
    if not said:
        return Section("training", title)
    columns = ("layer", "converged from epoch", *QUANTITIES.values(), "moved while the rate fell")
    return Section(
        "training",
        title,
        intro=tuple(f"{', '.join(names)}: {text}" for text, names in said.items()),
        tables=tuple(Table(", ".join(names), columns, cells, (NOTE,)) for cells, names in rows.items()),
        figure_groups=tuple(figure_group(kind, drawn) for kind, drawn in figures.items()),
        closing=tuple(closing),
    )


def _rows(table: xr.Dataset) -> tuple[tuple[str, ...], ...]:
    """Return one row a layer that has a posterior."""
    found = []
    for layer in table["layer"].values.tolist():
        row = table.sel(layer=layer)
        if bool(row["converged_epoch"].isnull().all()) and table.attrs["assessed"]:
            continue
        settled = (_epoch(row["settled_epoch"].sel(quantity=quantity)) for quantity in QUANTITIES)
        found.append((layer, _converged(row), *settled, _moved(row["tail_change"])))
    return tuple(found)


def _epoch(values: xr.DataArray) -> str:
    """Write an epoch, or the mean over several networks; where any of them never settled, that."""
    epochs = np.atleast_1d(values.values)
    if np.isnan(epochs).any():
        return MISSING
    return "never" if np.isinf(epochs).any() else f"{epochs.mean():.3g}"


def _converged(row: xr.Dataset) -> str:
    seeds = "seeds_converged_epoch" in row
    names = [f"{'seeds_' if seeds else ''}converged_epoch_{end}" for end in ("low", "high")]
    ends = (f"{pick(np.atleast_1d(row[name].values)):.3g}" for name, pick in zip(names, (np.min, np.max), strict=True))
    text = _epoch(row["converged_epoch"])
    return text if text == MISSING else f"{text}\n{' to '.join(ends)}".replace("inf", "never")


def _moved(values: xr.DataArray) -> str:
    """Write the largest relative change of the three quantities."""
    change = (values.mean("chain") if "chain" in values.dims else values).values
    if not np.isfinite(change).any():
        return MISSING
    return percent(change[int(np.nanargmax(np.abs(change)))])
