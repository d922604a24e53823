"""What a page is made of: sections that hold facts, tables, figures and code, all ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Alert", "Code", "Figure", "FigureGroup", "Section", "Table"]


WIDE = 800  # CSS pixels beyond which a picture takes a whole row
HALF = 600  # beyond which it takes half a row


@dataclass(frozen=True)
class Table:
    """A table of finished cells; the first cell of a row names it, columns in `words` hold text.

    What follows a line break in a cell is shown small below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture inside the page (`source` is a data URI), its size in CSS pixels, what it is of, and what it shows.

    `name` says of which posteriors it is, `caption` what to see in it, `alt` what kind of drawing it is.
    """

    source: str
    name: str
    width: int
    height: int
    caption: str = ""
    alt: str = ""

    @property
    def wide(self) -> bool:
        """Whether the picture takes a whole row."""
        return self.width > WIDE


@dataclass(frozen=True)
class FigureGroup:
    """Figures under one heading, with a note on how to read them."""

    title: str
    figures: tuple[Figure, ...]
    note: str = ""

    @property
    def columns(self) -> str:
        """Whether pictures need "half" a row each, or fit three to a row ("third")."""
        return "half" if any(HALF < figure.width <= WIDE for figure in self.figures) else "third"


@dataclass(frozen=True)
class Code:
    """Text to copy, under a heading."""

    title: str
    text: str


@dataclass(frozen=True)
class Alert:
    """What a reader must see first."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """One section of the page; what it does not have stays empty and is not shown.

    Parameters
    ----------
    id : str
        Anchor.
    title : str
        Heading.
    intro, closing : tuple of str
        Paragraphs before and after the rest.
    facts : tuple of (str, str)
        Short label and value, shown as a grid.
    tables : tuple of Table
    terms : tuple of (str, str)
        Words and what they mean.
    figure_groups : tuple of FigureGroup
    code : tuple of Code
    """

    id: str
    title: str
    intro: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    figure_groups: tuple[FigureGroup, ...] = ()
    code: tuple[Code, ...] = ()
    closing: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.intro or self.facts or self.tables or self.figure_groups or self.code or self.closing)
