"""Where the uncertainty of each network is, in one sentence and one small table, from the saved answers.

A layer's uncertainty is the share of the prior variance that the data leave a weight, averaged over the layer and with
all other weights known: 1 − conditional contraction, the figure that every posterior over weights has.
"""

from __future__ import annotations

import numpy as np

from wiu_pyro.errors import DataError
from wiu_pyro.report.answers import Answers
from wiu_pyro.report.findings import escaped
from wiu_pyro.report.numbers import MISSING

__all__ = ["where_rst"]


def where_rst(answers: Answers) -> str:
    """Return, network by network, which layer is the most uncertain, and what each posterior says of each layer.

    Parameters
    ----------
    answers : Answers

    Returns
    -------
    str
        reStructuredText. Shares are in percent, means over the seeds, the greatest of each posterior in bold; a
        posterior over fewer than two layers has no row.
    """
    lines: list[str] = []
    for network in answers.networks:
        shares = _shares_left(answers, network)
        if shares:
            lines += [*_of_network(answers, network, shares), ""]
    return "\n".join(lines)


def _shares_left(answers: Answers, network: str) -> dict[str, dict[str, float]]:
    """Return posterior → layer → share of the prior variance left, of the posteriors that tell layers apart."""
    try:
        table = answers.table(network, "compare")["conditional_contraction"]
    except (DataError, KeyError):
        return {}
    found = {}
    for posterior in table["posterior"].values:
        row = 1 - table.sel(posterior=posterior)
        if np.isfinite(row).sum() > 1:
            found[str(posterior)] = dict(zip(map(str, row["layer"].values), map(float, row.values), strict=True))
    return found


def _of_network(answers: Answers, network: str, shares: dict[str, dict[str, float]]) -> list[str]:
    called = str(answers.record(network).get("about") or network).rstrip(".")
    layers = list(next(iter(shares.values())))
    lines = [f"*{escaped(called)}.* {escaped(_sentence(shares))}", "", ".. list-table::", "   :header-rows: 1", ""]
    lines += _row(["", *map(escaped, layers)])
    for posterior, row in shares.items():
        most = max(value for value in row.values() if np.isfinite(value))
        lines += _row([escaped(posterior), *(_cell(row[layer], row[layer] == most) for layer in layers)])
    return lines


def _sentence(shares: dict[str, dict[str, float]]) -> str:
    """Say the most and the least uncertain layer; posterior by posterior where they differ."""
    said: dict[str, list[str]] = {}
    for posterior, row in shares.items():
        known = {layer: value for layer, value in row.items() if np.isfinite(value)}
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        said.setdefault(f"in '{most}', and least in '{least}'", []).append(posterior)
    every = " all of" if len(said) == 1 and len(shares) > 1 else ""
    parts = [f"{text} (by{every} {', '.join(names)})" for text, names in said.items()]
    return f"The uncertainty is greatest {'; '.join(parts)}."


def _row(cells: list[str]) -> list[str]:
    return [f"   {'*' if not index else ' '} - {cell}".rstrip() for index, cell in enumerate(cells)]


def _cell(share: float, is_most: bool) -> str:
    if not np.isfinite(share):
        return MISSING
    return f"**{100 * share:.0f} %**" if is_most else f"{100 * share:.0f} %"
