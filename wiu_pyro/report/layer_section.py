"""The layer tables of the page: one per posterior, and all of them side by side, like beside like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wiu_pyro import diagnostics
from wiu_pyro.errors import SchemaError
from wiu_pyro.report.columns import COLUMNS, Column, columns_of, layer_rows
from wiu_pyro.report.content import Section, Table
from wiu_pyro.report.numbers import number, percent, ratio
from wiu_pyro.report.posterior import Posterior

__all__ = ["layer_section"]

SHARES = ("kl_share", "effective_share")


def layer_section(posteriors: Sequence[Posterior]) -> Section:
    """Return the layer tables with every column explained in words."""
    tables = _beside(posteriors) if len(posteriors) > 1 else []
    tables += [_own_table(posterior) for posterior in posteriors]
    used = {column.name for posterior in posteriors for column in columns_of(posterior)}
    terms = tuple((column.title, column.meaning) for column in COLUMNS if column.name in used)
    intro = (
        "Each row is a layer, its weights and biases pooled, each relative to its own prior. The raw sd alone cannot "
        "compare layers; contraction, signal-to-noise and KL can.",
    )
    return Section("layers", "Layer by layer", intro=intro, tables=tuple(tables), terms=terms)


def _own_table(posterior: Posterior) -> Table:
    columns = [column for column in columns_of(posterior) if not column.name.endswith(("_q05", "_q95"))]
    rows = tuple((str(row["layer"]), *(_cell(column, row) for column in columns)) for row in layer_rows(posterior))
    return Table(
        f"{posterior.name}{posterior.mark}", ("layer", *(column.title for column in columns)), rows, _notes(posterior)
    )


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    """Write one cell: shares in percent, a median with its 5 % to 95 % quantiles on a second line."""
    value = row[column.name]
    if column.name in SHARES:
        return percent(value)
    ends = [row.get(column.name.replace("_q50", end)) for end in ("_q05", "_q95")]
    if column.name.endswith("_q50") and None not in ends:
        show = ratio if column.name.startswith("snr") else number
        return f"{show(value)}\n{show(ends[0])} – {show(ends[1])}"
    return number(value)


def _notes(posterior: Posterior) -> tuple[str, ...]:
    table, lines = posterior.table, []
    if "kl_between_layers" in table:
        between, total = (float(np.mean(table[name].values)) for name in ("kl_between_layers", "kl_total"))
        if np.isfinite(between) and abs(between) > 1e-6 * abs(total):
            lines.append(
                f"The layers' KLs do not add up to the whole: {number(between)} of {number(total)} nats are dependence "
                "between layers."
            )
        elif np.isfinite(total):
            lines.append(f"KL of the whole posterior from the prior: {number(total)} nats, the sum over the layers.")
    if "num_uncertain" in table:
        held = [
            layer for layer, count in zip(posterior.layers, posterior.column("num_uncertain"), strict=True) if not count
        ]
        if held:
            lines.append(f"At the point estimate, without an uncertainty: {', '.join(held)}.")
    reason = table["kl"].attrs.get("kl_reason") if "kl" in table else None
    if reason:
        lines.append(f"No KL for some layers: {reason}.")
    note, nothing = table["kl"].attrs.get("kl_note"), table["contraction"].attrs.get("reason")
    if note:
        lines.append(f"The KL is {note}.")
    if nothing:
        lines.append(f"No contraction and no effective parameters: {nothing}.")
    if table.attrs.get("moments") == "estimated":
        lines.append("This posterior has no closed form: its moments are estimated from draws and carry their noise.")
    if posterior.attrs.get("sd_of"):
        lines.append(f"Its sds are those of {posterior.attrs['sd_of']}.")
    if table.sizes.get("chain", 1) > 1:
        lines.append(f"Mean over {table.sizes['chain']} networks trained from different seeds.")
    return tuple(lines)


def _beside(posteriors: Sequence[Posterior]) -> list[Table]:
    """Put conditional beside conditional, and the marginal contraction of those that have one apart from it."""
    try:
        result = diagnostics.compare({posterior.name: posterior.idata for posterior in posteriors})
    except SchemaError as error:
        return [
            Table("Contraction, side by side", ("", "not compared"), (("why", str(error)),), words=("not compared",))
        ]
    with_marginal = [p for p in posteriors if result["marginal_contraction"].sel(posterior=p.name).notnull().any()]
    columns = {f"{p.name}{p.mark}": ("conditional_contraction", p.name) for p in posteriors}
    columns |= {f"{p.name}, marginal": ("marginal_contraction", p.name) for p in with_marginal}
    rows = tuple(
        (str(layer), *(number(result[name].sel(posterior=who, layer=layer).item()) for name, who in columns.values()))
        for layer in result["layer"].values
    )
    return [Table("Contraction, side by side", ("layer", *columns), rows, _beside_notes(posteriors, with_marginal))]


def _beside_notes(posteriors: Sequence[Posterior], with_marginal: Sequence[Posterior]) -> tuple[str, ...]:
    if not with_marginal or len(with_marginal) == len(posteriors):
        return ()
    names = ", ".join(posterior.name for posterior in with_marginal)
    return (
        "Factorised posteriors (mean-field, diagonal Laplace) describe each weight about as if all others were known. "
        f"Beside them stands the conditional contraction of {names}; its marginal contraction, which counts what "
        "correlated weights leave open, stands apart.",
    )
