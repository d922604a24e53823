"""`wiu cost`: what the Laplace posteriors of a network would take, before anything is trained."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from wiu_pyro.cli.console import say
from wiu_pyro.cli.options import AsJson, DataRoot, Debug
from wiu_pyro.cli.settings import DEFAULT_MODEL, RunSettings

__all__ = ["cost"]


def cost(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a shipped model, or path of a model script.")
    ] = DEFAULT_MODEL,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER|TAR", help="As for wiu run.", show_default="the script's own DATA"),
    ] = None,
    guides: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="Laplace posteriors to weigh up.")
    ] = "laplace-diag,laplace-kfac,laplace-full",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what memory and time Laplace posteriors would take; nothing is trained or written.

    [bold]Example[/bold]

    wiu cost mnist_lenet --guides laplace-kfac,laplace-full
    """
    names = tuple(name.strip() for name in guides.split(",") if name.strip())
    settings = RunSettings(model=model, data=data, guides=names, device=device, data_root=data_root)
    settings.check()
    found = _costs(settings)
    if as_json:
        print(json.dumps({name: _plain(one) for name, one in found.items()}, indent=1))
        return
    for name, one in found.items():
        print(f"{name}\n{one}\n")


def _costs(settings: RunSettings) -> dict[str, Any]:
    from wiu_pyro.cli.plan import load
    from wiu_pyro.guides.laplace import LaplaceGuide

    plan = load(settings)
    plan.model.to(plan.settings.device).eval()
    found = {}
    for name, kind in plan.guides.items():
        if isinstance(kind, type) and issubclass(kind, LaplaceGuide):
            found[name] = kind(plan.model).cost(plan.train)
        else:
            say(f"{name}: its cost is that of training, and is not weighed up here.")
    return found


def _plain(cost: Any) -> dict[str, Any]:
    return {
        "memory_bytes": cost.memory_bytes,
        "peak_bytes": cost.peak_bytes,
        "available_bytes": cost.available_bytes,
        "fits": cost.fits,
        "pass_seconds": cost.pass_seconds,
        "decomposition_seconds": cost.decomposition_seconds,
        "measured": cost.measured,
        "layers": [vars(layer) for layer in cost.layers],
    }
