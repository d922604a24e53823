"""Error of a network against the share of its weights removed, by each criterion and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from wiu_pyro.diagnostics.pruning_statement import NAMES, best_criterion
from wiu_pyro.errors import SchemaError
from wiu_pyro.plots.style import GREY, MARKERS, colours, grid_of_axes, new_axes, note_convergence, tidy, title

__all__ = ["pruning"]

HEIGHT, WIDTH = 3.3, 4.1  # inches of a panel
GAP = 0.32
MARGINS = (0.65, 0.25, 1.25, 0.85)
SAFE = "marks at the foot: safe sparsity, where there is one"
TICKS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
CEILING = 5.0  # the axis ends at so many times the unpruned error, or so many points above it
POINTS = 0.03
ROOM = 0.3  # below the unpruned error, beside what is above it
FOOT, STEP = 0.035, 0.05  # heights of the marks of safe sparsities, in shares of the panel
STYLES = {"one_shot": "-", "compensated": "--", "fine_tuned": ":"}
SPOKEN = {"one_shot": "in one shot", "compensated": "others follow", "fine_tuned": "fine-tuned"}


def pruning(table: xr.Dataset, *, ax: Axes | None = None, network: str = "mean", ranking: str | None = None) -> Axes:
    """Draw the error against the share of weights removed, a line for each criterion; at the right, layer by layer.

    The share runs along a logarithmic axis of what is kept. A band is the 95 % interval of the difference from the
    unpruned network, put around its error: over seeds where there are five or more, else over images. Grey: the
    unpruned error, and above it the margin. Marks at the foot stand at the safe sparsities, hollow where not in one
    shot. Lines leave the panel where the error is several times the unpruned one. Dashed: the other weights follow;
    dotted: fine-tuned. At the right each layer is pruned alone, by the criterion that lets most weights go.

    Parameters
    ----------
    table : Dataset
        What `wiu_pyro.interventions.prune` returned, or the same from a file.
    ax : Axes, optional
        Where to draw; it is divided into panels.
    network : {"mean", "predictive"}
        Which pruned network the left panel shows.
    ranking : {"global", "uniform"}, optional
        The first in the table when None.

    Returns
    -------
    Axes
        Its `child_axes` are the panels: whole network, and layers where the table has them.

    Raises
    ------
    SchemaError
        If the table is another one, or has no such network or ranking.
    """
    _check(table, network, ranking)
    layered = "layer_error" in table and table.sizes["layer"] > 1
    columns = 2 if layered else 1
    width = WIDTH * columns + WIDTH * GAP * (columns - 1) + MARGINS[0] + MARGINS[1]
    fresh = new_axes(ax, (width, HEIGHT + MARGINS[2] + MARGINS[3]), margins=MARGINS)
    panels = grid_of_axes(fresh, (1, columns), gap=(0, GAP))
    ranking = str(table["ranking"].values[0]) if ranking is None else ranking
    whole = table.sel(network=network, ranking=ranking)
    base = _mean(whole["unpruned_error"])
    _whole(panels[0], whole, network)
    spoken = "all weights ranked together" if ranking == "global" else "the same share from each layer"
    kind = "mean network" if network == "mean" else f"predictive ({table.attrs['predictive']})"
    title(panels[0], "Error along the share removed", f"{kind}, {spoken}\n{SAFE}")
    if layered:
        name = best_criterion(table)
        _layers(panels[1], table.sel(criterion=name))
        title(panels[1], "One layer pruned alone", f"mean network, by {NAMES.get(name, name)}\n{SAFE}")
    for panel in panels:
        mean_base = base if panel is panels[0] else _mean(table["unpruned_error"].sel(network="mean"))
        _axes(panel, table, mean_base)
    note_convergence(panels[-1], table.attrs, lift=28)
    return fresh


def _check(table: xr.Dataset, network: str, ranking: str | None) -> None:
    if "error" not in table or "unpruned_error" not in table or "criterion" not in table.dims:
        raise SchemaError(
            f"A table with 'error' by 'criterion' is needed, but this has {', '.join(map(str, table.data_vars))}. "
            "Pass what wiu_pyro.interventions.prune returned."
        )
    for dim, wanted in (("network", network), ("ranking", ranking)):
        held = table[dim].values.tolist()
        if wanted is not None and wanted not in held:
            raise SchemaError(
                f"A table with the {dim} '{wanted}' is needed, but this has {', '.join(held)}. Prune again with it: "
                f"{'num_samples=20' if dim == 'network' else f'rankings=({wanted!r},)'}."
            )


def _mean(values: xr.DataArray) -> float:
    return float(values.mean())


def _whole(panel: Axes, whole: xr.Dataset, network: str) -> None:
    colour = colours(list(NAMES))
    for place, name in enumerate(whole["criterion"].values.tolist()):
        for procedure in whole["procedure"].values.tolist():
            one = whole.sel(criterion=name, procedure=procedure)
            if not np.isfinite(one["error"].values).any():
                continue
            style = {"color": colour.get(name, GREY), "linestyle": STYLES[procedure], "marker": MARKERS[place % 7]}
            label = NAMES.get(name, name) + ("" if procedure == "one_shot" else f", {SPOKEN[procedure]}")
            _curve(panel, one, "", style, label, band=procedure == "one_shot" and name != "random")


def _layers(panel: Axes, table: xr.Dataset) -> None:
    names = [str(name) for name in table["layer"].values]
    colour = colours(names)
    for place, name in enumerate(names):
        one = table.sel(layer=name)
        one = one.assign(unpruned_error=one["unpruned_error"].sel(network="mean"))
        style = {"color": colour[name], "linestyle": "-", "marker": MARKERS[place % 7]}
        _curve(panel, one, "layer_", style, f"'{name}'", band=True)


def _curve(panel: Axes, one: xr.Dataset, prefix: str, style: dict[str, Any], label: str, *, band: bool) -> None:
    """Draw one curve, its band, and its safe sparsity."""
    shares = one["sparsity"].values
    base = _mean(one["unpruned_error"])
    error = _over_networks(one[f"{prefix}error"])
    across = _position(np.concatenate([[0.0], shares]))
    panel.plot(across, 100 * np.concatenate([[base], error]), label=label, linewidth=1.6, markersize=3.2, **style)
    low, high = _band(one, f"{prefix}error_difference")
    if band and low is not None:
        ends = [100 * np.concatenate([[base], base + end]) for end in (low, high)]
        panel.fill_between(across, *ends, color=style["color"], alpha=0.15, linewidth=0)
    safe = _safe(one, prefix)
    if safe > 0:
        rank = len([line for line in panel.lines if line.get_gid() == "safe"])
        panel.plot(
            _position(np.array([safe])),
            [FOOT + STEP * rank],
            transform=panel.get_xaxis_transform(),
            linestyle="",
            marker=style["marker"],
            color=style["color"],
            markerfacecolor=style["color"] if style["linestyle"] == "-" else "white",
            markersize=7,
            gid="safe",
        )


def _over_networks(values: xr.DataArray) -> np.ndarray:
    return (values.mean("chain") if "chain" in values.dims else values).values


def _band(one: xr.Dataset, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the ends of the difference: over seeds, or of the only network; none for two to four networks."""
    if f"seeds_{name}_low" in one:
        return one[f"seeds_{name}_low"].values, one[f"seeds_{name}_high"].values
    if "chain" in one[f"{name}_low"].dims:
        return None, None
    return one[f"{name}_low"].values, one[f"{name}_high"].values


def _safe(one: xr.Dataset, prefix: str) -> float:
    if f"seeds_{prefix}safe_sparsity" in one:
        return float(one[f"seeds_{prefix}safe_sparsity"])
    return float(one[f"{prefix}safe_sparsity"].min())


def _position(shares: np.ndarray) -> np.ndarray:
    """Return where a share removed stands: one step to the right for each half of what is kept."""
    return -np.log2(1 - shares)


def _axes(panel: Axes, table: xr.Dataset, base: float) -> None:
    last = float(table["sparsity"].values[-1])
    ticks = [share for share in TICKS if share <= last + 1e-9]
    panel.xaxis.set_major_locator(FixedLocator(_position(np.array(ticks)).tolist()))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticklabels([f"{100 * share:g}" for share in ticks])
    panel.set_xlabel("weights removed, %", fontsize=9.5)
    panel.set_ylabel("error, %", fontsize=9.5)
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 0 else ""))
    top = 100 * max(min(CEILING * base, 1.0), min(base + POINTS, 1.0))
    panel.set_ylim(100 * base - ROOM * (top - 100 * base), top)
    panel.set_xlim(-0.1, float(_position(np.array([last]))[0]) + 0.15)
    margin = 100 * (base + float(table.attrs["margin"]))
    panel.axhspan(100 * base, margin, color=GREY, alpha=0.25, linewidth=0, zorder=0, gid="margin")
    panel.axhline(100 * base, color=GREY, linewidth=0.9, zorder=0)
    tidy(panel)
    panel.grid(color="#ececec", linewidth=0.6)
    handles, labels = panel.get_legend_handles_labels()
    _legend(panel, handles, labels)


def _legend(panel: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    panel.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0, -0.16),
        ncols=2,
        fontsize=8,
        frameon=False,
        borderaxespad=0,
        handlelength=2.2,
    )
