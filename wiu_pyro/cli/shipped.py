"""What comes with wiu or is known to it by name: model scripts and data."""

from __future__ import annotations

from pathlib import Path

from wiu_pyro.cli.console import say
from wiu_pyro.cli.tables import print_json, print_table

__all__ = ["copy_model", "get_data", "list_data", "list_models"]


def list_models(*, as_json: bool) -> None:
    """Print the shipped model scripts, the data each is meant for, and what it says of itself."""
    from wiu_pyro.nn.scripts import load_model_script, shipped_models

    scripts = [load_model_script(name) for name in shipped_models()]
    rows = [{"name": script.name, "data": script.data or "", "about": script.about} for script in scripts]
    if as_json:
        print_json([row | {"path": script.path} for row, script in zip(rows, scripts, strict=True)])
    else:
        print_table(rows)


def copy_model(name: str, *, folder: Path) -> None:
    """Copy a shipped model script and print where it is."""
    from wiu_pyro.nn import scripts

    print(scripts.copy_model(name, folder))


def list_data(*, data_root: Path | None, as_json: bool) -> None:
    """Print the data known by name, and where each was found."""
    from wiu_pyro import datasets

    rows = [
        {
            "name": entry.name,
            "here": ", ".join(entry.splits) or "no",
            "where": entry.where or ("wiu data get" if entry.can_fetch else "by hand"),
            "about": entry.about,
        }
        for entry in datasets.available(data_root)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def get_data(name: str, *, data_root: Path | None) -> None:
    """Fetch data by name and print where they are."""
    from wiu_pyro import datasets

    say(f"Fetching {name} ...")
    print(datasets.fetch(name, data_root))
