"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllColumns",
    "AsJson",
    "DataRoot",
    "Debug",
    "EnsembleSize",
    "File",
    "PriorText",
    "Prune",
    "Report",
    "TrackEvery",
    "TrainImages",
    "TunePer",
    "TunePrior",
]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AllColumns = Annotated[bool, typer.Option("--all", help="Print every column of the table.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A posterior that wiu wrote, for example kfac.nc.")]
TunePrior = Annotated[
    str | None,
    typer.Option(
        metavar="marginal-likelihood", help="Tune the scale of the prior of Laplace posteriors by their evidence."
    ),
]
TunePer = Annotated[str | None, typer.Option(metavar="network|layer|site", help="What shares a scale of the prior.")]
PriorText = Annotated[
    str | None,
    typer.Option(
        metavar="fan-in|normal:SCALE|laplace:SCALE",
        help="Prior of every weight that has one.",
        show_default="the script's own",
    ),
]
TrackEvery = Annotated[
    int | None,
    typer.Option(
        metavar="EPOCHS",
        help="Keep the layers' figures through the training, so often; 0 keeps none.",
        show_default="up to 200 times of mean field, 30 times of the point estimate",
    ),
]
EnsembleSize = Annotated[int, typer.Option(metavar="N", help="Members of each ensemble (ensemble, ensemble-NAME).")]
TrainImages = Annotated[int | None, typer.Option(help="Train on the first so many images alone.", show_default="all")]
Prune = Annotated[bool, typer.Option("--prune", help="Also find how many weights of each posterior can go.")]
Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Write the page; wiu report DIR writes it at any later time.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Where data by name lie or are put.", show_default="WIU_DATA, else the user's cache"),
]
