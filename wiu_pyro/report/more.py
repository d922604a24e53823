"""The diagnostics without a section of their own: each name in `wiu_pyro.diagnostics.__all__` comes onto the page.

Figures without a dim, by layer, or by any one short dim become tables; what is larger is named with its size, to be
looked at from Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.errors import WiuError
from wiu_pyro.report.content import Section, Table
from wiu_pyro.report.numbers import MISSING, number
from wiu_pyro.report.posterior import Posterior

__all__ = ["SHOWN", "diagnostic_tables", "more_section"]

# what the page shows elsewhere, in tables or figures made for it
SHOWN = (
    "agreement",
    "between_layers",
    "compare",
    "convergence",
    "evolution",
    "identification",
    "input_map",
    "layer_uncertainty",
    "magnitude",
    "predictive",
    "training_loss",
    "weight_distribution",
    "weight_map",
    "within_layer",
)
MOST_ROWS = 40  # along a dim, beyond which figures are no table
SEVERAL = "idatas"  # first parameter of a diagnostic that takes all posteriors at once, by name

Row = tuple[str, xr.Dataset]


def more_section(posteriors: Sequence[Posterior]) -> Section:
    """Return a table of every diagnostic that has no section of its own.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Section
        Empty where there is none.
    """
    tables: list[Table] = []
    for name in diagnostics.__all__:
        if name not in SHOWN:
            tables += diagnostic_tables(name, posteriors)
    return Section("more", "Further diagnostics", tables=tuple(tables))


def diagnostic_tables(name: str, posteriors: Sequence[Posterior]) -> list[Table]:
    """Ask one diagnostic of all posteriors; return a table for each set of dims, the notes under the last one.

    Parameters
    ----------
    name : str
        Of a function in `wiu_pyro.diagnostics`.
    posteriors : sequence of Posterior

    Returns
    -------
    list of Table
        One that says why where there are no figures.
    """
    question = getattr(diagnostics, name)
    results, notes = _asked(name, question, posteriors)
    shapes = dict.fromkeys(
        data.dims for _, result in results for data in result.data_vars.values() if _fits(result, data.dims)
    )
    found = [_table(name, dims, results) for dims in shapes]
    notes = [*(f"{column}: {text}." for column, text in _meanings(results).items()), *notes, *_too_large(name, results)]
    opening = (inspect.getdoc(question) or "").split("\n\n")[0].replace("\n", " ")
    if not found:
        return [
            Table(
                _title(name),
                ("", "why there is no table"),
                (("note", " ".join(notes) or "Nothing."),),
                words=("why there is no table",),
            )
        ]
    columns, rows = found[-1]
    tables = [Table(_title(name), *parts) for parts in found[:-1]]
    return [*tables, Table(_title(name), columns, rows, tuple(filter(None, (opening, *notes))))]


def _asked(
    name: str, question: Callable[..., xr.Dataset], posteriors: Sequence[Posterior]
) -> tuple[list[Row], list[str]]:
    """Return what each posterior answered, chains averaged, and why some did not."""
    required = [p for p in inspect.signature(question).parameters.values() if p.default is p.empty and _is_named(p)]
    if len(required) > 1:
        wanted = ", ".join(parameter.name for parameter in required[1:])
        return [], [f"It needs {wanted}, which the page cannot know: call wiu_pyro.diagnostics.{name}."]
    together = bool(required) and required[0].name == SEVERAL
    asked: dict[str, Callable[[], xr.Dataset]] = (
        {"": lambda: question({p.name: p.idata for p in posteriors})}
        if together
        else {f"{p.name}{p.mark}": partial(p.asked, name) for p in posteriors}
    )
    results, notes = [], []
    for who, answer in asked.items():
        try:
            result = answer()
        except WiuError as error:
            notes.append(f"Not for {who or 'these posteriors'}: {error}")
            continue
        results.append((who, result.mean("chain", keep_attrs=True) if "chain" in result.dims else result))
    return results, notes


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _fits(result: xr.Dataset, dims: tuple[Any, ...]) -> bool:
    return all(result.sizes[dim] <= MOST_ROWS for dim in dims) and len(set(dims) - {"posterior"}) <= 1


def _table(
    name: str, dims: tuple[Any, ...], results: Sequence[Row]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return headings and rows of the variables over `dims`: a row for each posterior and each place along them."""
    held_anywhere = dict.fromkeys(
        str(key) for _, result in results for key, data in result.data_vars.items() if data.dims == dims
    )
    columns = [key for key in held_anywhere if not _is_end(key, held_anywhere)]
    rows = []
    for who, result in results:
        held = result[[key for key in held_anywhere if key in result and result[key].dims == dims]]
        for place in _places(held, dims):
            label = [part for part in (who, *(str(held[dim].values[at]) for dim, at in place.items())) if part]
            one = held.isel(place)
            rows.append((" · ".join(label) or name, *(_cell(one, key) for key in columns)))
    head = " · ".join(part for part in ("posterior" if any(who for who, _ in results) else "", *map(str, dims)) if part)
    return (head, *(column.replace("_", " ") for column in columns)), tuple(rows)


def _places(held: xr.Dataset, dims: tuple[Any, ...]) -> list[dict[Any, int]]:
    places: list[dict[Any, int]] = [{}]
    for dim in dims:
        places = [place | {dim: at} for place in places for at in range(held.sizes.get(dim, 0))]
    return places


def _is_end(key: str, columns: Container[str]) -> bool:
    """Whether a variable is an end of another one's interval."""
    return any(key.endswith(end) and key.removesuffix(end) in columns for end in ("_low", "_high"))


def _cell(one: xr.Dataset, key: str) -> str:
    """Write a figure, and its interval on a line of its own where there are variables ``_low`` and ``_high``."""
    low, high = (number(_value(one, f"{key}{end}")) for end in ("_low", "_high"))
    interval = f"\n{low} to {high}" if MISSING not in (low, high) else ""
    return f"{number(_value(one, key))}{interval}"


def _value(one: xr.Dataset, key: str) -> Any:
    return one[key].item() if key in one else None


def _meanings(results: Sequence[Row]) -> dict[str, str]:
    """Return what the variables' own attributes say they are."""
    return {
        str(key).replace("_", " "): str(data.attrs["long_name"]).rstrip(".")
        for _, result in results
        for key, data in result.data_vars.items()
        if "long_name" in data.attrs
    }


def _too_large(name: str, results: Sequence[Row]) -> list[str]:
    left = {
        f"{key} ({', '.join(f'{dim}: {result.sizes[dim]}' for dim in data.dims)})"
        for _, result in results
        for key, data in result.data_vars.items()
        if not _fits(result, data.dims)
    }
    return [f"Not a table: {', '.join(sorted(left))}. Look at it with wiu_pyro.diagnostics.{name}."] if left else []


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
