"""The commands that read saved posteriors: summary, compare, plot, report. None of them needs torch."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from wiu_pyro import diagnostics, schema
from wiu_pyro.cli.console import warn
from wiu_pyro.cli.group_table import show_group
from wiu_pyro.cli.sweep_table import is_sweep, show_sweep
from wiu_pyro.cli.tables import print_json, print_table
from wiu_pyro.errors import DataError, SchemaError, near_matches
from wiu_pyro.export.stores import is_zarr
from wiu_pyro.report.columns import SHORT_COLUMNS, layer_rows
from wiu_pyro.report.folder import RunFolder, written_aside
from wiu_pyro.report.numbers import estimate
from wiu_pyro.report.posterior import Posterior, convergence_sentence

__all__ = [
    "draw_plot",
    "print_wrapped",
    "read_posterior",
    "read_posteriors",
    "show_comparison",
    "show_layers",
    "show_report",
    "show_summary",
]

ENDINGS = (".nc", ".zarr")
COMPARED_SHORT = ("conditional_contraction", "marginal_contraction", "kl_per_weight")
COMPARED = (*COMPARED_SHORT, "conditional_sd_to_prior", "marginal_sd_to_prior", "kl")
PICTURES = (".png", ".svg", ".pdf")


def read_posterior(path: Path, *, lazy: bool = False) -> Posterior:
    """Return one saved posterior under the name it was fitted by; `lazy` leaves its arrays on the disk, unchecked.

    Parameters
    ----------
    path : Path
    lazy : bool

    Returns
    -------
    Posterior

    Raises
    ------
    SchemaError
        If the file is missing, truncated or not a posterior.
    """
    from wiu_pyro.export.files import load_tree

    if path.is_dir() and not is_zarr(path):
        inside = [
            file for folder in ("posteriors/*", "*") for file in sorted(path.glob(folder)) if file.suffix in ENDINGS
        ]
        found = f"It holds: {', '.join(map(str, inside))}." if inside else "It holds no posterior."
        raise SchemaError(f"A posterior file (.nc) is needed, but {path} is a folder. {found}")
    idata = load_tree(path, lazy=lazy)
    return Posterior.read(str(schema.attrs(idata).get("approximation") or path.stem), idata)


def read_posteriors(folder: RunFolder) -> tuple[list[Posterior], dict[str, str]]:
    """Return the posteriors of a run in the order they were asked for, and why others are missing.

    Parameters
    ----------
    folder : RunFolder

    Returns
    -------
    posteriors : list of Posterior
    missing : dict of str to str
        Reason by command-line name.
    """
    record = folder.read_record()
    asked = list(dict.fromkeys([*record["settings"].get("guides", ()), *record.get("posteriors", {})]))
    posteriors, missing = [], {}
    for name in asked:
        path = folder.posterior(name)
        if not path.is_file():
            missing[name] = "asked for, but not there: the run was cut off before it (wiu run --resume goes on)."
            continue
        try:
            posteriors.append(Posterior.read(name, read_posterior(path).idata))
        except SchemaError as error:
            missing[name] = str(error)
            warn(f"{name} is left out: {error}")
    return posteriors, missing


def show_summary(path: Path, *, group: str | None, every: bool, as_json: bool) -> None:
    """Print the layer table of one posterior, or one of its groups weight by weight."""
    posterior = read_posterior(path, lazy=True)
    if group is not None:
        show_group(posterior, group, as_json=as_json)
    elif as_json:
        print_json({"posterior": posterior.name, "attrs": posterior.attrs, "layers": layer_rows(posterior)})
    else:
        show_layers(posterior, every=every, in_words=True)


def show_layers(posterior: Posterior, *, every: bool = False, in_words: bool = False) -> None:
    """Print one posterior's layer table, and either all of it in words or only that the fit had not converged."""
    rows = layer_rows(posterior, None if every else SHORT_COLUMNS)
    attrs = posterior.attrs
    about = [attrs.get("model_name"), attrs.get("data_name")]
    title = " · ".join([posterior.name, *(str(part) for part in about if part)])
    print_table(rows, title=title)
    if in_words:
        print_wrapped(diagnostics.layer_statement(posterior.table))
    elif posterior.converged != "yes":
        print_wrapped(convergence_sentence(attrs))


def print_wrapped(text: str) -> None:
    """Print running text, no wider than a comfortable line."""
    width = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 100
    print(textwrap.fill(text, width=width))


def show_comparison(paths: Sequence[Path], *, every: bool, as_json: bool) -> None:
    """Print posteriors side by side: their layers, like beside like, and their predictions of the same data.

    Parameters
    ----------
    paths : sequence of Path
        Files, or folders of runs, whose posteriors are all taken; or the folder of one sweep.
    every : bool
        Print all columns.
    as_json : bool

    Raises
    ------
    DataError
        If there are fewer than two posteriors.
    """
    if len(paths) == 1 and is_sweep(paths[0]):
        show_sweep(paths[0], every=every, as_json=as_json)
        return
    files = [file for path in paths for file in _posterior_files(path)]
    if len(files) < 2:
        raise DataError(
            f"Two or more posteriors are needed to compare, got {len(files)}. Name more files, or the folder of a run."
        )
    named = _distinct([read_posterior(file, lazy=True) for file in files], files)
    result = diagnostics.compare({name: posterior.idata for name, posterior in named.items()})
    layers = [row for metric in COMPARED for row in _by_layer(result, metric, every=every)]
    predictions = [{"posterior": name} | _scalars(result.sel(posterior=name)) for name in named]
    if as_json:
        print_json({"layers": _long(result), "predictions": predictions, "attrs": result.attrs})
        return
    print_table(layers)
    print()
    print_table([_readable(row, every=every) for row in predictions])
    for posterior in named.values():
        if posterior.converged != "yes":
            print_wrapped(f"{posterior.name}: {convergence_sentence(posterior.attrs)}")


def _posterior_files(path: Path) -> list[Path]:
    """Return the file itself, or those of the run in a folder, in the order they were fitted."""
    if not path.is_dir() or is_zarr(path):
        return [path]
    folder = RunFolder(path)
    return [folder.posterior(name) for name in folder.read_record().get("posteriors", {})]


def _distinct(posteriors: Sequence[Posterior], files: Sequence[Path]) -> dict[str, Posterior]:
    """Name posteriors by what they are, and by their file where that is not enough."""
    names = [posterior.name for posterior in posteriors]
    return {
        name if names.count(name) == 1 else str(file): posterior
        for name, file, posterior in zip(names, files, posteriors, strict=True)
    }


def _by_layer(result: xr.Dataset, metric: str, *, every: bool) -> list[dict[str, Any]]:
    """Return one metric as rows by layer, a column for each posterior that has it."""
    if metric not in result or (metric not in COMPARED_SHORT and not every):
        return []
    values = result[metric]
    return [
        {"metric": metric, "layer": str(layer)}
        | {str(name): values.sel(layer=layer, posterior=name).item() for name in result["posterior"].values}
        for layer in result["layer"].values
    ]


def _scalars(row: xr.Dataset) -> dict[str, Any]:
    return {str(name): value.item() for name, value in row.data_vars.items() if not value.dims}


def _readable(row: dict[str, Any], *, every: bool) -> dict[str, Any]:
    """Return a row with each figure joined to its standard error."""
    joined: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_se") or (name in ("prior", "factorised") and not every):
            continue
        decimals = 4 if name in ("accuracy", "elpd_mean") else 1
        joined[name] = estimate(value, row[f"{name}_se"], decimals) if f"{name}_se" in row else value
    return joined


def _long(result: xr.Dataset) -> list[dict[str, Any]]:
    names = [name for name in result.data_vars if result[name].dims == ("posterior", "layer")]
    return [
        {"posterior": str(who), "layer": str(layer)}
        | {str(name): result[name].sel(posterior=who, layer=layer).item() for name in names}
        for who in result["posterior"].values
        for layer in result["layer"].values
    ]


def draw_plot(path: Path, kind: str, *, output: Path, layer: str | None) -> None:
    """Write one figure of a posterior.

    Parameters
    ----------
    path : Path
        The posterior.
    kind : str
        A key of `wiu_pyro.plots.KINDS`.
    output : Path
        Picture to write; its ending decides the format.
    layer : str or None
        For kinds that show one layer.

    Raises
    ------
    DataError
        If the kind, the layer or the ending is unknown, or the kind shows no single layer.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from wiu_pyro import plots
    from wiu_pyro.report.figures import figure_of

    if kind not in plots.KINDS:
        raise DataError(f"Unknown kind of plot '{kind}'. {near_matches(kind, plots.KINDS)}")
    if output.suffix.lower() not in PICTURES:
        raise DataError(
            f"The picture's name must end in {', '.join(PICTURES)}, got '{output}'. For example -o {output.stem}.png"
        )
    draw = plots.KINDS[kind]
    posterior = read_posterior(path)
    options = _layer_option(draw, kind, layer, posterior)
    drawing = draw(posterior.idata, **options)
    with written_aside(output) as aside:
        figure_of(drawing).savefig(aside, dpi=150, bbox_inches="tight", facecolor="white")
    print(output)


def _layer_option(draw: Any, kind: str, layer: str | None, posterior: Posterior) -> dict[str, str]:
    if layer is None:
        return {}
    if "layer" not in inspect.signature(draw).parameters:
        raise DataError(f"'{kind}' shows all layers and takes no --layer, got --layer {layer}. Leave it out.")
    name = layer.removeprefix(schema.LAYER_PREFIX)
    if name not in posterior.layers:
        raise DataError(f"Unknown layer '{layer}'. {near_matches(name, posterior.layers)}")
    return {"layer": name}


def show_report(path: Path) -> None:
    """Write the page of a run again and print where it is."""
    from wiu_pyro.report.page import write_report

    folder = RunFolder(path)
    posteriors, missing = read_posteriors(folder)
    print(write_report(path, posteriors, missing=missing))
