"""Two of the page's questions: do the layers differ, and along what do the weights within a layer differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, plots
from wiu_pyro.errors import WiuError
from wiu_pyro.report.captions import ALTS, caption
from wiu_pyro.report.content import Figure, FigureGroup, Section, Table
from wiu_pyro.report.figures import embedded
from wiu_pyro.report.numbers import number, percent
from wiu_pyro.report.posterior import Posterior

__all__ = ["between_section", "within_section"]

MOST_PAIRS = 30
METRICS = {
    "contraction": "contraction",
    "snr_q50": "median |mean| / sd",
    "kl_per_weight": "KL a weight, nats",
}
PARTS = {
    "output": "between outputs",
    "input": "between inputs",
    "position": "between kernel positions",
    "rest": "from weight to weight",
}


def between_section(posteriors: Sequence[Posterior]) -> Section:
    """Return what the posteriors say of the differences between layers: findings, figures, tables.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where no posterior has two layers.
    """
    return _section(
        posteriors,
        name="between_layers",
        title="Do the layers differ?",
        say=diagnostics.between_statement,
        draw=plots.between_layers,
        tabulate=_pairs,
        note="Each row is the first layer minus the second. Blue, full: the interval leaves out zero.",
    )


def within_section(posteriors: Sequence[Posterior]) -> Section:
    """Return along what the weights within each layer differ: findings, figures, tables.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where no posterior has a layer of outputs by inputs.
    """
    return _section(
        posteriors,
        name="within_layer",
        title="Do the weights within a layer differ?",
        say=diagnostics.within_statement,
        draw=plots.within_layer,
        tabulate=_parts,
        note="How much of the spread over a layer's weights lies between its outputs, between its inputs, between "
        "kernel positions, and from weight to weight; of Kronecker factors, the same for their eigendirections.",
    )


def _section(
    posteriors: Sequence[Posterior],
    *,
    name: str,
    title: str,
    say: Callable[[xr.Dataset], str],
    draw: Callable[..., Any],
    tabulate: Callable[[Posterior, xr.Dataset], Table],
    note: str,
) -> Section:
    figures: list[Figure] = []
    tables, intro, closing = [], [], []
    kind = name.replace("_", "-")
    for posterior in posteriors:
        who = f"{posterior.name}{posterior.mark}"
        try:
            table = posterior.asked(name)
        except WiuError as error:
            closing.append(f"Not for {who}: {error}")
            continue
        intro.append(f"{who}: {say(table)}")
        figures.append(embedded(draw(table), who, caption=caption(kind, posterior), alt=ALTS[kind]))
        tables.append(tabulate(posterior, table))
    if not tables:
        return Section(kind, title)
    groups = (FigureGroup("", tuple(figures), note),)
    return Section(kind, title, intro=tuple(intro), tables=tuple(tables), figure_groups=groups, closing=tuple(closing))


def _pairs(posterior: Posterior, table: xr.Dataset) -> Table:
    """Return the differences of the pairs, each with its interval, and the effect sizes."""
    delta = _over_networks(table["cliffs_delta"])
    size = np.nan_to_num(np.abs(delta.sel(quantity="contraction").values), nan=-1.0)
    shown = np.sort(np.argsort(-size, kind="stable")[:MOST_PAIRS])
    metrics = [metric for metric in METRICS if metric in table["metric"].values]
    rows = []
    for place in shown:
        one = table.isel(pair=int(place))
        effects = (float(delta.isel(pair=int(place)).sel(quantity=quantity)) for quantity in ("contraction", "log_snr"))
        cells = (_difference(one.sel(metric=metric)) for metric in metrics)
        rows.append((str(one["pair"].item()), *cells, *map(number, effects)))
    notes = [f"In small print: {table.attrs['interval_method']} ({percent(table.attrs['level'], 0)})."]
    if len(shown) < table.sizes["pair"]:
        notes.append(f"The {len(shown)} of {table.sizes['pair']} pairs that are furthest apart weight by weight.")
    columns = (
        "pair",
        *(METRICS[metric] for metric in metrics),
        "Cliff's delta, contraction",
        "Cliff's delta, |mean| / sd",
    )
    return Table(f"{posterior.name}{posterior.mark}", columns, tuple(rows), tuple(notes))


def _difference(one: xr.Dataset) -> str:
    """Write a difference, and its interval on a line of its own where it has one."""
    kind = "seeds" if one.attrs["interval"] == "seeds" else "within"
    low, high = (np.atleast_1d(one[f"{kind}_{end}"].values) for end in ("low", "high"))
    interval = f"\n{number(low.min())} to {number(high.max())}" if np.isfinite([low, high]).all() else ""
    return f"{number(float(one['difference']))}{interval}"


def _parts(posterior: Posterior, table: xr.Dataset) -> Table:
    """Return the shares of the spread of log sd in each layer, and how many units are dead."""
    rows = table.sel(quantity="log_sd_to_prior")
    share = _over_networks(rows["share"])
    low, high = (rows[f"share_{end}"] for end in ("low", "high"))
    low, high = (
        (low.min("chain", skipna=False), high.max("chain", skipna=False)) if "chain" in low.dims else (low, high)
    )
    parts = [part for part in PARTS if part != "position" or bool((share.sel(part=part) > 0).any())]
    cells = []
    for layer in (str(name) for name in table["layer"].values):
        written = []
        for part in parts:
            place = {"layer": layer, "part": part}
            ends = [float(end.sel(place)) for end in (low, high)]
            interval = f"\n{percent(ends[0], 0)} to {percent(ends[1], 0)}" if np.isfinite(ends).all() else ""
            written.append(f"{percent(float(share.sel(place)), 0)}{interval}")
        dead = [_over_networks(table[f"num_dead_{side}"]).sel(layer=layer).item() for side in ("outputs", "inputs")]
        cells.append(
            (layer, *written, *(number(round(count) if float(count).is_integer() else count) for count in dead))
        )
    columns = ("layer", *(PARTS[part] for part in parts), "dead outputs", "dead inputs")
    notes = (
        f"Shares of the spread of log sd. In small print: {table.attrs['interval_method']} "
        f"({percent(table.attrs['level'], 0)}), beyond chance where within one network.",
    )
    return Table(f"{posterior.name}{posterior.mark}", columns, tuple(cells), notes)


def _over_networks(values: xr.DataArray) -> xr.DataArray:
    return values.mean("chain") if "chain" in values.dims else values
