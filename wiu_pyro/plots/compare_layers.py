"""Layers by posteriors: like beside like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wiu_pyro.diagnostics import compare
from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.plots.style import GREY, MARKERS, as_table, colours, new_axes, tidy

__all__ = ["compare_layers"]

PANELS = {
    "conditional_contraction": "conditional contraction",
    "marginal_contraction": "marginal contraction",
    "kl_per_weight": "KL from the prior, nats a weight",
}
MORE = {
    "conditional_sd_to_prior": "conditional sd / prior sd",
    "marginal_sd_to_prior": "marginal sd / prior sd",
    "kl": "KL from the prior, nats",
}


def compare_layers(sources: Any, metric: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Draw several posteriors layer by layer, conditional figures beside conditional, marginal beside marginal.

    Bars are 95 % intervals over the seeds, where there are five or more.

    Parameters
    ----------
    sources : mapping or sequence of InferenceData or DataTree, or Dataset
        Posteriors, or what `wiu_pyro.diagnostics.compare` returned.
    metric : str, optional
        One of the variables by layer of `compare`; conditional contraction, marginal contraction and KL a weight, those
        of them that any posterior has, if not given.
    ax : Axes, optional
        Where to draw; needs one `metric`.

    Returns
    -------
    Figure or Axes
        A figure of up to three panels, or the axes of the one metric. Posteriors whose fit had not converged have
        hollow markers.

    Raises
    ------
    DataError
        If the metric is unknown, or `ax` is given without one.
    SchemaError
        If no posterior has an uncertainty.
    """
    known = PANELS | MORE
    if metric is not None and metric not in known:
        raise DataError(f"Unknown metric '{metric}'. {near_matches(metric, known)}")
    if metric is None and ax is not None:
        raise DataError(
            "One pair of axes holds one metric, but none was named. Pass metric='kl_per_weight', for example."
        )
    table = as_table(sources, compare)
    layers = table.sizes["layer"]
    if metric is not None:
        fresh = new_axes(ax, (6, 1.5 + 0.45 * layers))
        _panel(fresh, table, metric, known[metric])
        fresh.legend(**_legend_options())
        return fresh
    drawn = [name for name in PANELS if bool(table[name].notnull().any())]
    if not drawn:
        raise SchemaError(
            "A posterior with an uncertainty is needed, but these are point estimates, which have none. Compare others."
        )
    figure, axes = plt.subplots(
        1, len(drawn), figsize=(10, 1.6 + 0.45 * layers), layout="constrained", sharey=True, squeeze=False
    )
    for panel, name in zip(axes[0], drawn, strict=True):
        _panel(panel, table, name, PANELS[name])
        panel.tick_params(axis="y", labelleft=panel is axes[0][0])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    return figure


def _panel(ax: Axes, table: xr.Dataset, metric: str, label: str) -> None:
    layers = [str(name) for name in table["layer"].values]
    posteriors = [str(name) for name in table["posterior"].values]
    colour = colours(posteriors)
    rows = np.arange(len(layers))[::-1]
    for row in rows:
        ax.axhline(row, color="#e4e4e4", linewidth=0.8, zorder=0)
    for place, (name, shift) in enumerate(zip(posteriors, _shifts(len(posteriors)), strict=True)):
        one = table.sel(posterior=name)
        converged = str(one["converged"].item())
        text = name if converged != "no" else f"{name} (not converged)"
        _interval(ax, one, metric, rows - shift, colour[name])
        ax.plot(
            one[metric].values,
            rows - shift,
            linestyle="none",
            marker=MARKERS[place % len(MARKERS)],
            markersize=7,
            color=colour[name],
            markerfacecolor="white" if converged == "no" else colour[name],
            label=text,
        )
    tidy(ax)
    ax.set_yticks(rows, layers)
    ax.set_ylim(-0.6, len(layers) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if "contraction" in metric:
        ax.set_xlim(min(-0.02, float(table[metric].min()) - 0.02), 1.02)
    else:
        ax.set_xlim(0, None)
    ax.set_xlabel(label)
    missing = table[metric].isnull()
    if "contraction" in metric and bool((missing.any("layer") & ~missing.all("layer")).any()):
        ax.annotate(
            "no mark: at the point estimate",
            (1, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=8, color=GREY,
        )  # fmt: skip
    elif bool(missing.all("layer").any()):
        ax.annotate(
            "none where the posterior factorises" if metric.startswith("marginal") else "not all posteriors have one",
            (1, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=8, color=GREY,
        )  # fmt: skip


def _interval(ax: Axes, one: xr.Dataset, metric: str, heights: np.ndarray, colour: Any) -> None:
    """Draw the interval over the seeds, where the table has one."""
    if f"{metric}_low" not in one:
        return
    low, high = (one[f"{metric}_{end}"].values for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    ax.hlines(heights[known], low[known], high[known], color=colour, linewidth=2, alpha=0.6)


def _shifts(number: int) -> Sequence[float]:
    """Return small steps down the row, so that equal figures of several posteriors are all seen."""
    return np.linspace(-0.16, 0.16, number).tolist() if number > 1 else [0.0]


def _legend_options() -> dict[str, Any]:
    return {"frameon": False, "fontsize": 9, "loc": "lower left", "bbox_to_anchor": (0, 1.02), "ncols": 2}
