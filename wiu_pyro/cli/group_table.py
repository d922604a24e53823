"""`wiu summary --group`: one layer weight by weight, by ArviZ from draws or in closed form from exact moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from wiu_pyro import schema
from wiu_pyro.cli.tables import print_json, print_table
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.errors import SchemaError, near_matches
from wiu_pyro.export.container import build
from wiu_pyro.report.posterior import Posterior

__all__ = ["exact_rows", "show_group"]

LEVEL = 0.94  # of the intervals, as ArviZ has it
MOST_BY_DRAWS = 10_000  # weights; ArviZ takes minutes beyond, and hours for all of a large layer
MOST_SHOWN = 1_000


def show_group(posterior: Posterior, group: str, *, as_json: bool) -> None:
    """Print ArviZ's summary of a group of draws, or mean, sd and interval from a group of moments.

    Parameters
    ----------
    posterior : Posterior
    group : str
        ``"posterior"``, ``"layer_<name>"`` or ``"moments_<name>"``. A layer of more than 10,000 exported weights is
        shown by its moments.
    as_json : bool

    Raises
    ------
    SchemaError
        If there is no such group.
    """
    prefixes = (schema.LAYER_PREFIX, schema.MOMENTS_PREFIX)
    known = ["posterior", *(name for name in schema.groups(posterior.idata) if name.startswith(prefixes))]
    if group not in known:
        layer = schema.layer_group(group)
        hint = f"Did you mean '{layer}'? " if layer in known else near_matches(group, known)
        raise SchemaError(f"A group with draws or moments is needed, but this file has no '{group}'. {hint}")
    networks, data = num_seeds(posterior.idata), schema.dataset(posterior.idata, group)
    if group.startswith(schema.LAYER_PREFIX) and _num_weights(data) > MOST_BY_DRAWS:
        group = schema.moments_group(group.removeprefix(schema.LAYER_PREFIX))
        data = schema.dataset(posterior.idata, group)
    title = f"{posterior.name} · {group}"
    if networks > 1 and group != "posterior":  # weights of two networks do not correspond
        data, title = data.isel(chain=[0]), f"{title} · the first of {networks} networks"
    rows = exact_rows(data) if group.startswith(schema.MOMENTS_PREFIX) else _by_arviz(data, group)
    if as_json:
        print_json({"posterior": posterior.name, "group": group, "weights": rows})
        return
    print_table(rows[:MOST_SHOWN], title=title)
    if len(rows) > MOST_SHOWN:
        print(f"... and {len(rows) - MOST_SHOWN:,} more: --json prints all.")


def _num_weights(data: xr.Dataset) -> int:
    return sum(array.size // max(1, array.sizes["chain"] * array.sizes["draw"]) for array in data.data_vars.values())


def _by_arviz(data: xr.Dataset, group: str) -> list[dict[str, Any]]:
    import arviz as az

    table = az.summary(build({group: data}), group=group, kind="stats")
    return [{"weight": str(name)} | row for name, row in zip(table.index, table.to_dict("records"), strict=True)]


def exact_rows(data: xr.Dataset) -> list[dict[str, Any]]:
    """Return mean, sd and the 94 % interval of each weight of a group of moments, of the first of its chains.

    Parameters
    ----------
    data : Dataset
        Group ``moments_<name>``.

    Returns
    -------
    list of dict
        The interval is that of a Normal with these moments.
    """
    reach, rows = stats.norm.isf((1 - LEVEL) / 2), []
    low, high = f"low_{100 * (1 - LEVEL) / 2:g}%", f"high_{100 * (1 + LEVEL) / 2:g}%"
    for name, prefix in schema.moment_parameters(data).items():
        mean, sd = (data[prefix + part].isel(chain=0) for part in ("mean", "sd"))
        ends = mean.values - reach * sd.values, mean.values + reach * sd.values
        columns = (part.ravel().tolist() for part in (mean.values, sd.values, *ends))
        for place, values in zip(np.ndindex(mean.shape), zip(*columns, strict=True), strict=True):
            label = f"{name}[{', '.join(map(str, place))}]"
            rows.append({"weight": label} | dict(zip(("mean", "sd", low, high), values, strict=True)))
    return rows
