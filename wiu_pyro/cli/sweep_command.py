"""The command `wiu sweep`, its options and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wiu_pyro.cli.options import DataRoot, Debug, TrackEvery, TrainImages, TunePer, TunePrior

__all__ = ["sweep"]


def sweep(
    out: Annotated[Path, typer.Option(help="Folder for all runs and the table.")],
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG", help="TOML file: models, data, guides, priors, seeds, and options of wiu run."
        ),
    ] = None,
    models: Annotated[str | None, typer.Option(metavar="NAME,...", help="Shipped models, or paths of scripts.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="As wiu run takes them; own: the script's.")
    ] = None,
    guides: Annotated[str | None, typer.Option(metavar="NAME,...", help="Posteriors, fitted in each run.")] = None,
    priors: Annotated[
        str | None, typer.Option(metavar="PRIOR,...", help="fan-in, normal:SCALE, laplace:SCALE; own: the script's.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0-4", help="Seeds, as 0-4 or 0,3,7.", show_default="0-4")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="As for wiu run.")] = None,
    vi_epochs: Annotated[int | None, typer.Option(help="As for wiu run.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="As for wiu run.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="As for wiu run.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="As for wiu run.")] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="As for wiu run.", show_default="augment")
    ] = None,
    device: Annotated[str | None, typer.Option(help="As for wiu run.")] = None,
    data_root: DataRoot = None,
    train_images: TrainImages = None,
    tune_prior: TunePrior = None,
    tune_per: TunePer = None,
    track_every: TrackEvery = None,
    ensemble_size: Annotated[int | None, typer.Option(help="As for wiu run.")] = None,
    report: Annotated[
        bool | None,
        typer.Option("--report/--no-report", help="The page of each run.", show_default="report"),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, in processes of this machine.")] = 1,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler, tcp://host:8786, or local.")
    ] = None,
    task: Annotated[int | None, typer.Option(help="Of an array: which share to run, from 0.")] = None,
    num_tasks: Annotated[int | None, typer.Option(help="Of an array: how many shares there are.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Print the runs and whether they are complete.")] = False,
    debug: Debug = False,
) -> None:
    """Run a grid of models, data, priors and seeds, skip what is complete, and write one table.

    Writes DIR/runs/<run>/ as wiu run does, and DIR/results.csv with a row for each posterior. The same command goes on
    with a sweep that was cut off. wiu compare DIR shows the means over seeds.

    [bold]Examples[/bold]

    wiu sweep --models digits_mlp --seeds 0-4 --jobs 2 --out sweeps/seeds

    wiu sweep grid.toml --out sweeps/grid

    wiu sweep grid.toml --out sweeps/grid --task $SLURM_ARRAY_TASK_ID --num-tasks 10
    """
    from wiu_pyro.cli.grid import read_config
    from wiu_pyro.cli.sweep import Workers, is_complete, run_sweep

    axes = {"models": models, "data": data, "guides": guides, "priors": priors, "seeds": seeds}
    shared = {"epochs": epochs, "vi_epochs": vi_epochs, "learning_rate": learning_rate, "num_samples": num_samples}
    shared |= {"train_images": train_images, "track_every": track_every}
    shared |= {"batch_size": batch_size, "augment": augment, "device": device, "data_root": data_root}
    shared |= {"tune_prior": tune_prior, "tune_per": tune_per, "ensemble_size": ensemble_size, "report": report}
    grid = read_config(config, out, axes | shared)
    if list_only:
        for name, settings in grid.runs().items():
            print(f"{name}  {'complete' if is_complete(settings) else 'to do'}")
        return
    print(run_sweep(grid, Workers(jobs=jobs, dask=dask, task=task, num_tasks=num_tasks)))
