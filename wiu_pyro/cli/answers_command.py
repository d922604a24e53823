"""The command `wiu answers`, its options and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wiu_pyro.cli.options import DataRoot, Debug

__all__ = ["answers"]


def answers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a sweep.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")],
    tables: Annotated[bool, typer.Option(help="Ask every diagnostic.")] = True,
    interventions: Annotated[
        bool, typer.Option(help="Also prune, and make layers deterministic; takes the longest.")
    ] = False,
    ood: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER|TAR", help="Data out of distribution, for the AUROC.")
    ] = None,
    images: Annotated[int, typer.Option(help="Test images that sets of layers are judged on.")] = 2_000,
    prune_images: Annotated[
        int | None, typer.Option(help="Test images that pruned networks are judged on.", show_default="all")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Draws behind every set of layers.")] = 50,
    sets: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Sets of layers to leave uncertain; of a deep network, only: each layer alone.",
            show_default="only,last,first,all_but",
        ),
    ] = None,
    refit_epochs: Annotated[
        int, typer.Option(help="Epochs of mean-field posteriors of some layers alone; 0: none are trained.")
    ] = 0,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Ask every question of a sweep's posteriors, seeds joined, and keep the answers as small tables.

    Writes OUT/<network>/<posterior>/<table>.nc.gz, which wiu_pyro.report.read_answers reads, and what they say in
    words, OUT/findings.rst and OUT/brief.rst. Runs that differ by their seed alone are one posterior with the seeds
    along chain; their point estimates are one more, the deep ensemble.

    [bold]Examples[/bold]

    wiu answers sweeps/mnist -o answers

    wiu answers sweeps/mnist -o answers --interventions
    """
    from wiu_pyro.cli.answers import groups_of_seeds, write_answers, write_findings
    from wiu_pyro.cli.answers_interventions import InterventionOptions, write_interventions
    from wiu_pyro.report import read_answers

    if not tables:
        read_answers(out)  # raises at once where there is nothing for the interventions to stand beside
    options = InterventionOptions(
        ood=ood,
        images=images,
        prune_images=prune_images,
        num_samples=num_samples,
        families=None if sets is None else tuple(name.strip() for name in sets.split(",")),
        refit_epochs=refit_epochs,
    )
    for seeds in groups_of_seeds(folder):
        if tables:
            print(write_answers(seeds, out, data_root=data_root))
        if interventions:
            print(write_interventions(seeds, out, options, data_root=data_root))
    for path in write_findings(out):
        print(path)
