"""Tables on stdout: aligned text that keeps every digit, or JSON.

On a terminal narrower than the table, columns go into further blocks, each with the row names again; in a pipe a table
is never broken.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wiu_pyro.report.numbers import number, plain

__all__ = ["print_json", "print_table", "text_table"]

Row = Mapping[str, Any]


def print_json(content: Any) -> None:
    """Print as JSON on stdout; what is not finite becomes null."""
    print(json.dumps(plain(content), indent=2, allow_nan=False))


def print_table(rows: Sequence[Row], *, title: str = "") -> None:
    """Print rows on stdout, as wide as the terminal where there is one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(text_table(rows, title=title, width=width))


def text_table(rows: Sequence[Row], *, title: str = "", width: int | None = None) -> str:
    """Return rows as aligned text, numbers to the right.

    Parameters
    ----------
    rows : sequence of mapping
        Column name to value; the first column names the row. All rows have the columns of the first one.
    title : str
        A line above the table.
    width : int or None
        Characters a line may have; columns beyond go into further blocks. None: no limit.

    Returns
    -------
    str

    Examples
    --------
    >>> print(text_table([{"layer": "fc1", "kl": 12.5}, {"layer": "out", "kl": 1200.0}]))
    layer     kl
    fc1     12.5
    out    1,200
    """
    if not rows:
        return "\n".join(filter(None, [title, "(nothing)"]))
    columns = [_column(name, [row[name] for row in rows]) for name in rows[0]]
    blocks = ["\n".join(_lines(block)) for block in _blocks(columns, width)]
    return "\n".join(filter(None, [title, "\n\n".join(blocks)]))


def _column(name: str, values: Sequence[Any]) -> list[str]:
    cells = [name, *(number(value) for value in values)]
    length = max(len(cell) for cell in cells)
    words = all(isinstance(value, str) for value in values)
    return [cell.ljust(length) if words else cell.rjust(length) for cell in cells]


def _blocks(columns: list[list[str]], width: int | None) -> list[list[list[str]]]:
    """Share the columns out over blocks that fit, each opening with the first column."""
    first, rest = columns[0], columns[1:]
    blocks: list[list[list[str]]] = [[first]]
    used = len(first[0])
    for column in rest:
        needed = 2 + len(column[0])
        if width is not None and used + needed > width and len(blocks[-1]) > 1:
            blocks.append([first])
            used = len(first[0])
        blocks[-1].append(column)
        used += needed
    return blocks


def _lines(columns: list[list[str]]) -> list[str]:
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
