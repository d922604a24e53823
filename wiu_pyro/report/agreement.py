"""One of the page's questions: is the answer true, by how far the posteriors agree and by a reference among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, plots, schema
from wiu_pyro.errors import WiuError
from wiu_pyro.report.content import FigureGroup, Section, Table
from wiu_pyro.report.figures import embedded
from wiu_pyro.report.numbers import number
from wiu_pyro.report.posterior import Posterior

__all__ = ["agreement_section"]

REFERENCES = ("MCMC", "grid", "closed form")  # what stands in place of a guide
TITLE = "Is the answer true?"
NOTE = (
    "Rank correlations: of the images' variance, of the weights' sd / prior sd, and of its mean square over each "
    "output and input; bars are 95 % intervals. Grey ticks: what a perfect answer would reach against the reference's "
    "noise."
)
ALT = "Rank correlations of the posteriors in rows of images, weights and units, in panels by the kind of sd"
COLUMNS = {
    "weight_rank": "weights, rank correlation",
    "output_rank": "outputs, rank correlation",
    "input_rank": "inputs, rank correlation",
    "weight_log_ratio": "log ratio of the sds",
}


def agreement_section(posteriors: Sequence[Posterior]) -> Section:
    """Return how far the posteriors agree: the finding, the figure, and a table by layer.

    Parameters
    ----------
    posteriors : sequence of Posterior
        Draws of MCMC, of a grid or of a closed form among them are what the others are held to: the first such.

    Returns
    -------
    Section
        Empty of fewer than two posteriors.
    """
    posteriors, left_out = _alike(posteriors)
    if len(posteriors) < 2:
        return Section("agreement", TITLE, closing=left_out)
    references = [one.name for one in posteriors if str(schema.attrs(one.idata).get("guide", "")) in REFERENCES]
    try:
        table = diagnostics.agreement(
            {one.name: one.idata for one in posteriors}, references[0] if references else None
        )
    except WiuError as error:
        return Section("agreement", TITLE, closing=(f"Not for these posteriors: {error}", *left_out))
    figure = embedded(plots.agreement(table), "all posteriors", alt=ALT)
    return Section(
        "agreement",
        TITLE,
        intro=(diagnostics.agreement_statement(table),),
        tables=(_table(table),),
        figure_groups=(FigureGroup("", (figure,), NOTE),),
        closing=left_out,
    )


def _alike(posteriors: Sequence[Posterior]) -> tuple[list[Posterior], tuple[str, ...]]:
    """Return the posteriors that can be set side by side, and why others cannot: point estimates, other networks."""
    uncertain = [one for one in posteriors if one.covered]
    sizes = {one.name: int(one.attrs.get("members", 1)) for one in uncertain}
    most = max(set(sizes.values()), key=list(sizes.values()).count, default=1)
    chosen = [one for one in uncertain if sizes[one.name] == most]
    said = [f"{one.name}: every weight at a point estimate" for one in posteriors if not one.covered]
    said += [f"{one.name}: {sizes[one.name]} networks beside {most}" for one in uncertain if one not in chosen]
    return chosen, (f"Not set side by side: {'; '.join(said)}.",) if said else ()


def _table(table: xr.Dataset) -> Table:
    """Return the figures of each pair by layer and kind of sd, with their intervals."""
    rows = []
    for pair in table["pair"].values.tolist():
        for kind in table["kind"].values.tolist():
            for layer in table["layer"].values.tolist():
                one = table.sel(pair=pair, kind=kind, layer=layer)
                if np.isfinite(one["weight_rank"]):
                    cells = (_cell(one, name) for name in COLUMNS)
                    rows.append((pair, layer, kind, *cells))
    return Table("By layer", ("pair", "layer", "sd", *COLUMNS.values()), tuple(rows), words=("layer", "sd"))


def _cell(one: xr.Dataset, name: str) -> str:
    value, low, high = (float(one[f"{name}{end}"]) for end in ("", "_low", "_high"))
    interval = f"\n{number(low)} to {number(high)}" if np.isfinite([low, high]).all() else ""
    return f"{number(value)}{interval}"
