"""The table of a sweep: one row per posterior, from the files of its runs; and means over seeds with intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from wiu_pyro.cli.tables import print_json, print_table
from wiu_pyro.errors import DataError, OutputError, WiuError
from wiu_pyro.metrics import FEWEST_SEEDS, student_intervals
from wiu_pyro.report.folder import RunFolder, written_aside

__all__ = ["RECORD", "TABLE", "is_sweep", "show_sweep", "sweep_rows", "write_table"]

RECORD = "sweep.json"
TABLE = "results.csv"
NAMED = ("run", "model", "data", "prior", "seed", "posterior")
QUALITY = ("accuracy", "nll", "brier", "ece")
LAYER = ("contraction", "conditional_contraction", "kl_per_weight")
SHOWN = ("accuracy", "nll", "ece")


def is_sweep(path: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return path.is_dir() and (path / RECORD).is_file()


def sweep_rows(folder: Path) -> list[dict[str, Any]]:
    """Return one row for each posterior of each run, read from the files.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of dict
        Run, model, data, prior, seed, posterior; status (``"complete"``, ``"cut off"``, ``"missing"`` or
        ``"unreadable"``), converged, seconds, file; quality of the predictions, KL of the network in nats, log marginal
        likelihood; and by layer, as ``"contraction fc1"``, the figures of the layer table. A run without a posterior
        has one row.

    Raises
    ------
    OutputError
        If the folder holds no sweep.
    """
    if not is_sweep(folder):
        raise OutputError(f"A folder with a {RECORD} is needed, but {folder} has none. Make one with wiu sweep --out.")
    names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["runs"]
    return [row for name in names for row in _of_run(folder, name)]


def _of_run(folder: Path, name: str) -> list[dict[str, Any]]:
    run = RunFolder(folder / "runs" / name)
    try:
        record = run.read_record()
    except OutputError:
        return [{"run": name, "status": "missing"}]
    settings, model = record["settings"], record.get("model", {})
    head = {
        "run": name,
        "model": model.get("name", settings["model"]),
        "data": record.get("data", {}).get("name", settings["data"]),
        "prior": settings.get("prior") or "own",
        "seed": settings["seed"],
        "status": "complete" if record.get("finished") else "cut off",
    }
    held = record.get("posteriors", {})
    rows = [head | {"posterior": guide} | _of_posterior(run, guide, entry) for guide, entry in held.items()]
    return rows or [head]


def _of_posterior(run: RunFolder, guide: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    from wiu_pyro import diagnostics, schema
    from wiu_pyro.export.files import load

    path = run.posterior(guide)
    row: dict[str, Any] = {"seconds": entry.get("fit_seconds"), "file": str(path.relative_to(run.path.parent.parent))}
    try:
        idata = load(path)
    except WiuError:
        return row | {"status": "unreadable"}
    attrs, table = schema.attrs(idata), diagnostics.layer_uncertainty(idata)
    row |= {"converged": attrs["converged"], "prior_in_force": attrs["prior"], "kl_total": _number(table, "kl_total")}
    if "log_marginal_likelihood" in attrs:
        row["log_marginal_likelihood"] = float(attrs["log_marginal_likelihood"])
    try:
        quality = diagnostics.predictive(idata)
        row |= {name: _number(quality, name) for name in QUALITY if name in quality}
    except WiuError:
        pass  # a regression, or no predictions: nothing of the kind in the row
    for name in LAYER:
        if name in table:
            values = table[name].mean("chain") if "chain" in table[name].dims else table[name]
            row |= {f"{name} {layer}": float(values.sel(layer=layer)) for layer in table["layer"].values.tolist()}
    return row


def _number(table: Any, name: str) -> float:
    return float(np.mean(table[name].values)) if name in table else float("nan")


def write_table(folder: Path) -> Path:
    """Write the table of all that a sweep's folder holds, in one move.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
    """
    rows = sweep_rows(folder)
    columns = list(dict.fromkeys([*NAMED, "status", *(name for row in rows for name in row)]))
    with written_aside(folder / TABLE) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / TABLE


def show_sweep(folder: Path, *, every: bool, as_json: bool) -> None:
    """Print the posteriors of a sweep side by side: means over seeds, of five or more with 95 % intervals.

    Parameters
    ----------
    folder : Path
    every : bool
        All figures of the table.
    as_json : bool
        The rows themselves, one for each posterior.

    Raises
    ------
    DataError
        If no posterior is there yet.
    """
    rows = sweep_rows(folder)
    if as_json:
        print_json({"posteriors": rows})
        return
    known = [row for row in rows if "posterior" in row and row["status"] != "unreadable"]
    if not known:
        raise DataError(f"A sweep with posteriors is needed, but {folder} has none yet. Go on with wiu sweep.")
    print_table(
        [_summary(group, every=every) for group in _groups(known)],
        title="Means over seeds; of five or more with 95 % intervals",
    )
    print()
    print_table([row for group in _groups(known) for row in _by_layer(group)])
    odd = [f"{row['run']} ({row['status']})" for row in rows if row["status"] != "complete"]
    if odd:
        print(f"Not complete: {', '.join(dict.fromkeys(odd))}.")


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("model", "data", "prior", "posterior"))


def _groups(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    order = {key: place for place, key in reversed(list(enumerate(map(_key, rows))))}
    return [list(group) for _, group in groupby(sorted(rows, key=lambda row: order[_key(row)]), key=_key)]


def _head(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = group[0]
    return {"posterior": first["posterior"]} | {name: first[name] for name in ("model", "data", "prior")}


def _summary(group: Sequence[Mapping[str, Any]], *, every: bool) -> dict[str, Any]:
    names = (*QUALITY, "kl_total", "log_marginal_likelihood") if every else SHOWN
    settled = sum(row.get("converged") == "yes" for row in group)
    head = _head(group) | {"seeds": len(group), "converged": f"{settled} of {len(group)}"}
    return head | {name: _over_seeds([row.get(name) for row in group]) for name in names}


def _by_layer(group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    layers = dict.fromkeys(name.split(" ", 1)[1] for row in group for name in row if name.startswith("contraction "))
    return [
        {"layer": layer}
        | _head(group)
        | {name: _over_seeds([row.get(f"{name} {layer}") for row in group]) for name in LAYER}
        for layer in layers
    ]


def _over_seeds(values: Sequence[Any]) -> str:
    """Write the mean over seeds, and its interval where there are five or more."""
    known = [float(value) for value in values if value is not None and np.isfinite(float(value))]
    if not known:
        return "–"
    found = student_intervals(np.array(known)[:, None])
    text = f"{found.estimate[0]:.4g}"
    return text if len(known) < FEWEST_SEEDS else f"{text} ({found.low[0]:.4g} to {found.high[0]:.4g})"
