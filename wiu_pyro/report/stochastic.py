"""One of the page's questions: is the last layer enough. Read from what `wiu stochastic-layers` left in the folder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, plots
from wiu_pyro.report.captions import opening
from wiu_pyro.report.content import FigureGroup, Section, Table
from wiu_pyro.report.figures import embedded
from wiu_pyro.report.numbers import MISSING, number, percent

__all__ = ["stochastic_section"]

TITLE = "Is the last layer enough?"
ALTS = (
    "Sets of uncertain layers by rows, with the share of the functional variance and differences in score from the "
    "whole posterior, with intervals",
    "Each layer's share of the variance of the predictions, by first-order, Shapley and total effect",
)
NOTES = (
    "Restricted: the posterior of all layers, those outside the set put at their mean. Refitted: a posterior of the "
    "set alone. Full marks: the interval leaves out what the whole posterior has.",
    "The disc is a layer's fair share of the variance (Shapley effect); the bar goes from what it does alone to what "
    "it does together with the others.",
)
METRICS = {
    "nll": "NLL, nats",
    "squared_error": "squared error",
    "brier": "Brier",
    "error": "error rate",
    "ece": "ECE",
    "auroc_entropy": "AUROC of entropy",
    "auroc_mutual_information": "AUROC of mutual information",
}
EFFECTS = {"first_order": "first order", "shapley": "Shapley", "total": "total"}


def stochastic_section(tables: Mapping[str, xr.Dataset]) -> Section:
    """Return whether the last layer is enough, and whose the variance is: findings, figures, tables.

    Parameters
    ----------
    tables : mapping of str to Dataset
        What `wiu_pyro.interventions.stochastic_layers` returned, by posterior.

    Returns
    -------
    Section
        Empty where there is no table.
    """
    intro, rows, sets, effects = [], [], [], []
    for name, table in tables.items():
        said = diagnostics.stochastic_layers_statement(table)
        intro.append(f"{name}: {said}")
        if table.sizes["layer"] < 2:
            continue
        sets.append(embedded(plots.stochastic_layers(table), name, caption=opening(said), alt=ALTS[0]))
        rows.append(_sets_table(name, table))
        if "effect_share" in table:
            effects.append(embedded(plots.layer_effects(table), name, alt=ALTS[1]))
            rows.append(_effects_table(name, table))
    groups = (
        FigureGroup("", tuple(sets), NOTES[0]),
        FigureGroup("Which layers the variance comes from", tuple(effects), NOTES[1]),
    )
    shown = tuple(group for group in groups if group.figures)
    return Section("last-layer", TITLE, intro=tuple(intro), tables=tuple(rows), figure_groups=shown)


def _sets_table(name: str, table: xr.Dataset) -> Table:
    """Return share of the variance and differences from the whole posterior, by set and kind, with intervals."""
    metrics = [metric for metric in METRICS if metric in table["metric"].values]
    rows = []
    for layer_set in (str(one) for one in table["layer_set"].values):
        kinds = ("restricted",) if layer_set in ("none", "all") else ("restricted", "refitted")
        for kind in kinds:
            one = table.sel(layer_set=layer_set, kind=kind)
            if bool(one["value"].isnull().all()):
                continue
            label = layer_set if len(kinds) == 1 else f"{layer_set}, {kind}"
            share = _cell(one.sel(response="output"), "variance_share", share=True)
            rows.append((label, share, *(_cell(one.sel(metric=metric), "difference") for metric in metrics)))
    columns = ("uncertain layers", "functional variance", *(METRICS[metric] for metric in metrics))
    over = f"{table.attrs['num_seeds']} seeds" if table.attrs["interval"] == "seeds" else "images"
    note = (
        f"Share of the whole posterior's functional variance, and differences from its scores. In small print: "
        f"{percent(table.attrs['level'], 0)} intervals over {over}, paired, simultaneous over the sets of a column."
    )
    return Table(f"{name}: layer sets", columns, tuple(rows), (note,))


def _effects_table(name: str, table: xr.Dataset) -> Table:
    rows = []
    for layer in (str(one) for one in table["layer"].values):
        for response in (str(one) for one in table["response"].values):
            one = table.sel(layer=layer, response=response)
            cells = (_cell(one.sel(effect=effect), "effect", share=True) for effect in EFFECTS)
            rows.append((f"{layer}, variance of the {response}", *cells))
    return Table(f"{name}: shares of the variance", ("layer", *EFFECTS.values()), tuple(rows))


def _cell(one: xr.Dataset, name: str, *, share: bool = False) -> str:
    """Write a figure, and its interval on a line of its own where it has one."""
    value, low, high = (float(one[f"{name}{end}"]) for end in ("_share" if name == "effect" else "", "_low", "_high"))
    if not np.isfinite(value):
        return MISSING

    def written(figure: float) -> str:
        return percent(figure, 0) if share else number(figure)

    wide = np.isfinite([low, high]).all() and high > low
    return f"{written(value)}\n{written(low)} to {written(high)}" if wide else written(value)
