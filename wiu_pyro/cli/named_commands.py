"""`wiu models` and `wiu data`: what is known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wiu_pyro.cli.options import AsJson, DataRoot, Debug

__all__ = ["data_app", "models_app"]

models_app = typer.Typer(no_args_is_help=True, help="The model scripts that come with wiu.")
data_app = typer.Typer(no_args_is_help=True, help="The data known by name.")


@models_app.command("list")
def models_list(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the model scripts that come with wiu."""
    from wiu_pyro.cli.shipped import list_models

    list_models(as_json=as_json)


@models_app.command("copy")
def models_copy(
    name: Annotated[str, typer.Argument(help="Name of a shipped model (wiu models list).")],
    folder: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to put it.")] = Path(),
    debug: Debug = False,
) -> None:
    """Copy a shipped model script, to make one's own from it.

    [bold]Example[/bold]

    wiu models copy mnist_mlp --to my_project
    """
    from wiu_pyro.cli.shipped import copy_model

    copy_model(name, folder=folder)


@data_app.command("list")
def data_list(data_root: DataRoot = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the data known by name, and whether they are here already."""
    from wiu_pyro.cli.shipped import list_data

    list_data(data_root=data_root, as_json=as_json)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="Name of the data (wiu data list).")],
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Fetch data by name, so that later runs need no network.

    [bold]Example[/bold]

    wiu data get mnist --data-root ~/data
    """
    from wiu_pyro.cli.shipped import get_data

    get_data(name, data_root=data_root)
