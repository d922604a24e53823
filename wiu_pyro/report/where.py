"""Where the uncertainty of each network is, in one sentence and one small table, from the saved answers.

A layer's uncertainty is the share of the prior variance that the data leave a weight, averaged over the layer and with
all other weights known: 1 − conditional contraction, the figure that every posterior over weights has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.diagnostics.wording import Figure, percent
from wiu_pyro.report.answers import Answers
from wiu_pyro.report.answers_findings import escaped
from wiu_pyro.report.like_with_like import between_metric
from wiu_pyro.report.numbers import MISSING

__all__ = ["where_rst"]

LEVEL = 0.95


@dataclass(frozen=True)
class _Row:
    """What one posterior says of the layers.

    Attributes
    ----------
    shares : dict of str to Figure
        Share of the prior variance left, with its interval over the seeds, together over the layers.
    apart : set of frozenset
        Pairs of layers whose difference has an interval over the seeds that leaves out zero.
    over_seeds : bool
        Whether there are seeds enough for intervals.
    """

    shares: dict[str, Figure]
    apart: set[frozenset[str]]
    over_seeds: bool

    def like(self, layer: str) -> list[str]:
        """Return the layers that are not told apart from one; none where nothing could be."""
        others = [other for other, one in self.shares.items() if other != layer and np.isfinite(one.value)]
        return [other for other in others if self.over_seeds and frozenset((layer, other)) not in self.apart]


def where_rst(answers: Answers) -> str:
    """Return, network by network, which layer is the most uncertain, and what each posterior says of each layer.

    A layer is the most or the least uncertain where the intervals of its differences from all others, over the seeds
    and simultaneous over the pairs, leave out zero; which it is not told apart from is said.

    Parameters
    ----------
    answers : Answers

    Returns
    -------
    str
        reStructuredText. Shares are in percent, means over the seeds with intervals, the greatest of each posterior in
        bold; a posterior over fewer than two layers has no row.
    """
    lines: list[str] = []
    for network in answers.networks:
        tables = answers.tables(network, "between_layers")
        rows = {name: row for name, table in tables.items() if len((row := _row(table)).shares) > 1}
        if rows:
            lines += [*_of_network(answers, network, rows), ""]
    return "\n".join(lines)


def _row(table: xr.Dataset) -> _Row:
    """Read one posterior's row off its comparison of the layers."""
    one = table.sel(metric=between_metric(table))
    each = 1 - np.atleast_2d(one["value"].transpose(..., "layer").values.astype(np.float64))  # (network, layer)
    over_seeds = table.attrs["interval"] == "seeds"
    found = metrics.student_intervals(each, level=LEVEL)
    ends = (found.low, found.high) if over_seeds else (np.full_like(found.low, np.nan),) * 2
    layers = [str(layer) for layer in one["layer"].values]
    shares = {
        layer: Figure(layer, float(value), max(float(low), 0.0), float(high))
        for layer, value, low, high in zip(layers, found.estimate, *ends, strict=True)
        if np.isfinite(value)
    }
    low, high = one["seeds_low"].values, one["seeds_high"].values
    names = zip(one["first"].values, one["second"].values, (low > 0) | (high < 0), strict=True)
    return _Row(shares, {frozenset((str(a), str(b))) for a, b, apart in names if apart}, over_seeds)


def _of_network(answers: Answers, network: str, rows: dict[str, _Row]) -> list[str]:
    called = str(answers.record(network).get("about") or network).rstrip(".")
    held = {layer for row in rows.values() for layer in row.shares}
    layers = answers.record(network).get("layers") or sorted(held)
    said = escaped(f"{_sentence(rows)} {_basis(answers, network, rows)}".rstrip())
    lines = [f"*{escaped(called)}.* {said}", "", ".. list-table::", "   :header-rows: 1", ""]
    lines += _line(["", *map(escaped, layers)])
    for posterior, row in rows.items():
        most = max(one.value for one in row.shares.values())
        lines += _line([escaped(posterior), *(_cell(row.shares.get(layer), most) for layer in layers)])
    return lines


def _sentence(rows: dict[str, _Row]) -> str:
    """Say the most and the least uncertain layer; posterior by posterior where they differ."""
    said: dict[str, list[str]] = {}
    for posterior, row in rows.items():
        ordered = sorted(row.shares, key=lambda layer: row.shares[layer].value)
        text = f"in {_named(row, ordered[-1])}, and least in {_named(row, ordered[0])}"
        said.setdefault(text, []).append(posterior)
    every = " all of" if len(said) == 1 and len(rows) > 1 else ""
    parts = [f"{text} (by{every} {', '.join(names)})" for text, names in said.items()]
    return f"The uncertainty is greatest {'; '.join(parts)}."


def _named(row: _Row, layer: str) -> str:
    like = ", ".join(f"'{other}'" for other in row.like(layer))
    return f"'{layer}'{f', not told apart from {like}' if like else ''}"


def _basis(answers: Answers, network: str, rows: dict[str, _Row]) -> str:
    if not all(row.over_seeds for row in rows.values()):
        return "Too few seeds for intervals."
    num = len(answers.record(network)["seeds"])
    return f"In brackets: 95 % intervals over {num} seeds, together over the layers."


def _line(cells: list[str]) -> list[str]:
    return [f"   {'*' if not index else ' '} - {cell}".rstrip() for index, cell in enumerate(cells)]


def _cell(share: Figure | None, most: float) -> str:
    if share is None:
        return MISSING
    value, _, ends = share.text(percent).partition(" (")
    return f"{f'**{value}**' if share.value == most else value}{f' ({ends}' if ends else ''}"
