"""The commands that read saved posteriors: summary, compare, plot, report. None of them needs torch."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from wiu_pyro import schema
from wiu_pyro.cli.console import warn
from wiu_pyro.cli.tables import print_json, print_table
from wiu_pyro.errors import SchemaError, near_matches
from wiu_pyro.report import Posterior, write_report
from wiu_pyro.report.columns import SHORT_COLUMNS, layer_rows
from wiu_pyro.report.folder import RunFolder
from wiu_pyro.report.posterior import convergence_sentence

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


def read_posterior(path: Path) -> Posterior:
    """Return one saved posterior under the name it was fitted by.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Posterior

    Raises
    ------
    SchemaError
        If the file is missing, truncated or not a posterior.
    """
    from wiu_pyro.export.files import load

    if path.is_dir():
        inside = sorted(path.glob("posteriors/*.nc")) or sorted(path.glob("*.nc"))
        found = f"It holds: {', '.join(map(str, inside))}." if inside else "It holds no posterior."
        raise SchemaError(f"A posterior file (.nc) is needed, but {path} is a folder. {found}")
    idata = load(path)
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
    """Print the layer table of one posterior, or ArviZ's summary of one group."""
    posterior = read_posterior(path)
    if group is not None:
        _show_group(posterior, group, as_json=as_json)
    elif as_json:
        print_json({"posterior": posterior.name, "attrs": posterior.attrs, "layers": layer_rows(posterior)})
    else:
        show_layers(posterior, every=every)


def show_layers(posterior: Posterior, *, every: bool = False) -> None:
    """Print one posterior's layer table, with what must stand beside it."""
    rows = layer_rows(posterior, None if every else SHORT_COLUMNS)
    attrs = posterior.attrs
    about = [attrs.get("model_name"), attrs.get("data_name")]
    title = " · ".join([posterior.name, *(str(part) for part in about if part)])
    print_table(rows, title=title)
    if posterior.converged != "yes":
        print_wrapped(convergence_sentence(attrs))


def _show_group(posterior: Posterior, group: str, *, as_json: bool) -> None:
    import arviz as az

    known = [name for name in schema.groups(posterior.idata) if name.startswith(schema.LAYER_PREFIX)]
    known.append("posterior")
    if group not in known:
        layer = schema.layer_group(group)
        hint = f"Did you mean '{layer}'? " if layer in known else near_matches(group, known)
        raise SchemaError(f"A group with draws is needed, but this file has no '{group}'. {hint}")
    table = az.summary(posterior.idata, group=group, kind="stats")
    rows = [{"weight": str(name)} | row for name, row in zip(table.index, table.to_dict("records"), strict=True)]
    if as_json:
        print_json({"posterior": posterior.name, "group": group, "weights": rows})
    else:
        print_table(rows, title=f"{posterior.name} · {group}")


def print_wrapped(text: str) -> None:
    """Print running text, no wider than a comfortable line."""
    width = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 100
    print(textwrap.fill(text, width=width))


def show_comparison(paths: Sequence[Path], *, every: bool, as_json: bool) -> None:
    """Print posteriors side by side."""
    raise NotImplementedError


def draw_plot(path: Path, kind: str, *, output: Path, layer: str | None) -> None:
    """Write one figure of a posterior."""
    raise NotImplementedError


def show_report(path: Path) -> None:
    """Write the page of a run again and print where it is."""
    folder = RunFolder(path)
    posteriors, missing = read_posteriors(folder)
    print(write_report(path, posteriors, missing=missing))
