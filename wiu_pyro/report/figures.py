"""The figures of the page: drawn by `wiu_pyro.plots`, kept inside the page as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure as MatplotlibFigure

from wiu_pyro import plots
from wiu_pyro.errors import SchemaError
from wiu_pyro.report.content import Figure, FigureGroup, Section
from wiu_pyro.report.posterior import Posterior

__all__ = ["drawn", "embedded", "figure_section"]

DPI = 150
CSS_DPI = 96


def embedded(drawing: Any, caption: str) -> Figure:
    """Return a matplotlib drawing as a picture inside the page, and close it.

    Parameters
    ----------
    drawing : Figure, Axes, or array of Axes
    caption : str

    Returns
    -------
    Figure
    """
    import matplotlib.pyplot as plt

    figure = _figure_of(drawing)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    content = picture.getvalue()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # of the PNG's IHDR
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return Figure(source, caption, round(width * CSS_DPI / DPI), round(height * CSS_DPI / DPI))


def _figure_of(drawing: Any) -> MatplotlibFigure:
    if isinstance(drawing, MatplotlibFigure):
        return drawing
    first = drawing.flat[0] if hasattr(drawing, "flat") else drawing
    return first.figure


def drawn(kind: str, posterior: Posterior, **options: Any) -> Figure | None:
    """Return one kind of plot of one posterior, or None where its file does not hold what the plot needs.

    Parameters
    ----------
    kind : str
        A key of `wiu_pyro.plots.KINDS`.
    posterior : Posterior
    **options
        Passed to the plot.

    Returns
    -------
    Figure or None
    """
    if kind not in getattr(plots, "KINDS", {}):
        return None
    try:
        drawing = plots.KINDS[kind](posterior.idata, **options)
    except SchemaError:
        return None
    return embedded(drawing, f"{posterior.name}: {kind}")


def figure_section(posteriors: Sequence[Posterior]) -> Section:
    """Return the plots of the layers' uncertainty, one group per kind."""
    groups = []
    for kind in getattr(plots, "KINDS", {}):
        figures = tuple(figure for figure in (drawn(kind, p) for p in posteriors) if figure is not None)
        if figures:
            groups.append(FigureGroup(kind, figures))
    return Section("figures", "Inside the layers", figure_groups=tuple(groups))
