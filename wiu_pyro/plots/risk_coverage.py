"""The error rate of a classifier that declines the images it is least sure of."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from wiu_pyro.diagnostics import predictive
from wiu_pyro.errors import SchemaError
from wiu_pyro.plots.style import COLOURS, GREY, as_table, chains, new_axes, note_convergence, tidy, title

__all__ = ["risk_coverage"]


def risk_coverage(source: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the error rate among the images answered against the share answered, beside the point estimate's.

    Parameters
    ----------
    source : InferenceData, DataTree or Dataset
        A posterior of a classifier, or what `wiu_pyro.diagnostics.predictive` returned.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        One line a chain, and one of the point estimate where the file holds it.

    Raises
    ------
    SchemaError
        If the predictions are not of a classifier.
    """
    table = as_table(source, predictive)
    if "risk" not in table:
        raise SchemaError(
            "A classifier's predictions are needed for a risk-coverage curve, but these are a regression's."
        )
    fresh = new_axes(ax, (4.6, 3.3))
    name = str(table.attrs.get("approximation", "posterior"))
    several = chains(table)
    for number, one in enumerate(several):
        coverage = one["coverage"].values
        if "point_risk" in one:
            label = "point estimate" if number == 0 else None
            fresh.plot(coverage, one["point_risk"].values, color=GREY, linewidth=1.3, linestyle="--", label=label)
        alpha = 1 if len(several) == 1 else 0.6
        label = name if number == 0 else None
        fresh.plot(coverage, one["risk"].values, color=COLOURS[0], linewidth=1.8, alpha=alpha, label=label)
    for axis in (fresh.xaxis, fresh.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    fresh.yaxis.set_major_locator(MaxNLocator(5))
    fresh.set_xlim(0, 1)
    fresh.set_ylim(0, None)
    fresh.set_xlabel("share of images answered, surest first")
    fresh.set_ylabel("error rate among them")
    tidy(fresh)
    fresh.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    fresh.legend(frameon=False, fontsize=9, loc="upper left")
    title(fresh, f"Declining, {name}", f"area under the curve {float(table['aurc'].mean()):.4f}")
    note_convergence(fresh, table.attrs)
    return fresh
