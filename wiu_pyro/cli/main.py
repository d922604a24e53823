"""The commands of `wiu`, their options and their help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wiu_pyro.cli.answers_command import answers
from wiu_pyro.cli.console import guarded
from wiu_pyro.cli.cost import cost
from wiu_pyro.cli.named_commands import data_app, models_app
from wiu_pyro.cli.options import (
    AllColumns,
    AsJson,
    DataRoot,
    Debug,
    EnsembleSize,
    File,
    PriorText,
    Prune,
    Report,
    TrackEvery,
    TrainImages,
    TunePer,
    TunePrior,
)
from wiu_pyro.cli.settings import DEFAULT_GUIDES, DEFAULT_MODEL, RunSettings
from wiu_pyro.cli.stochastic_command import stochastic_layers
from wiu_pyro.cli.sweep_command import sweep

__all__ = ["app", "main"]

app = typer.Typer(
    name="wiu",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")
app.command()(cost)
app.command("stochastic-layers")(stochastic_layers)
app.command()(sweep)
app.command()(answers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `wiu` command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str or None
        What follows ``wiu``; None takes the process's own.

    Returns
    -------
    int
        0 where all went well, 2 for bad input, 1 for an unexpected error, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda words: app(list(words), prog_name="wiu"), given)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("wiu_pyro"))
        raise typer.Exit


@app.callback()
def _wiu(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Where is the uncertainty? Posteriors over a network's weights, layer by layer.

    [bold]First steps[/bold]

    wiu run      fits three posteriors on scikit-learn's digits and writes runs/digits_mlp-digits/report.html

    wiu summary runs/digits_mlp-digits/posteriors/laplace-kfac.nc      prints one row per layer

    wiu run mnist_mlp --data mnist      does the same on MNIST

    Progress goes to stderr, results to stdout. Exit codes: 0 done, 2 bad input, 1 unexpected error, 130 interrupted.
    """


@app.command()
def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a shipped model, or path of a model script.")
    ] = DEFAULT_MODEL,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER|TAR",
            help="digits, mnist, ... (wiu data list), a folder with train/<class>/*.png and test/<class>/*.png, "
            "or a .tar of one.",
            show_default="the script's own DATA",
        ),
    ] = None,
    guides: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Posteriors to fit. By default mean-field, laplace-diag and laplace-kfac; ensemble-NAME is an "
            "ensemble of NAME, ensemble one of point estimates; an unknown name lists all there are.",
            show_default=False,
        ),
    ] = ",".join(DEFAULT_GUIDES),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="runs/<model>-<data>")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data.", show_default="the script's own EPOCHS, else 20")
    ] = None,
    vi_epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes for variational posteriors, after the point estimate.",
            show_default="--epochs, else the script's own VI_EPOCHS, else EPOCHS",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam.", show_default="the script's own LEARNING_RATE, else 1e-3")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides first weights, batches and draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    num_samples: Annotated[int, typer.Option(help="Draws from each posterior.")] = 200,
    data_root: DataRoot = None,
    train_images: TrainImages = None,
    batch_size: Annotated[int, typer.Option(help="Images per training step.")] = 128,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Change training images as the script's AUGMENT says.")
    ] = True,
    tune_prior: TunePrior = None,
    tune_per: TunePer = None,
    track_every: TrackEvery = None,
    prior: PriorText = None,
    ensemble_size: EnsembleSize = 5,
    prune: Prune = False,
    report: Report = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder: keep what is there.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    debug: Debug = False,
) -> None:
    """Fit posteriors over a network's weights, export them and write the report.

    Writes DIR/run.json, DIR/posteriors/<guide>.nc and DIR/report.html, and prints the layer tables.

    [bold]Examples[/bold]

    wiu run

    wiu run mnist_mlp --guides laplace-kfac --out runs/kfac

    wiu run my_network.py --data my_images/ --epochs 30 --seed 1 --prune
    """
    settings = RunSettings(
        model=model,
        data=data,
        guides=tuple(name.strip() for name in guides.split(",") if name.strip()),
        out=out,
        epochs=epochs,
        vi_epochs=vi_epochs,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        num_samples=num_samples,
        data_root=data_root,
        train_images=train_images,
        batch_size=batch_size,
        augment=augment,
        tune_prior=tune_prior,
        tune_per=tune_per,
        track_every=track_every,
        prior=prior,
        ensemble_size=ensemble_size,
        prune=prune,
        report=report,
        resume=resume,
        overwrite=overwrite,
    )
    settings.check()
    from wiu_pyro.cli.pipeline import run_pipeline

    run_pipeline(settings)


@app.command()
def summary(
    file: File,
    group: Annotated[
        str | None,
        typer.Option(
            help="Look inside one layer, for example layer_fc1, or at its exact moments: moments_fc1.",
            show_default="all layers",
        ),
    ] = None,
    every: AllColumns = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print one posterior's layer table, or what is inside one layer.

    [bold]Examples[/bold]

    wiu summary runs/digits_mlp-digits/posteriors/laplace-kfac.nc

    wiu summary kfac.nc --group layer_fc1
    """
    from wiu_pyro.cli.reading import show_summary

    show_summary(file, group=group, every=every, as_json=as_json)


@app.command()
def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Two or more posteriors, or the folder of a run or a sweep.")
    ],
    every: AllColumns = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare posteriors: layer by layer, like beside like, and by their predictions on the same data.

    [bold]Examples[/bold]

    wiu compare runs/digits_mlp-digits

    wiu compare mean-field.nc laplace-kfac.nc --json

    wiu compare sweeps/seeds
    """
    from wiu_pyro.cli.reading import show_comparison

    show_comparison(files, every=every, as_json=as_json)


@app.command()
def plot(
    file: File,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to draw. An unknown kind lists all of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write: .png, .svg or .pdf.")],
    layer: Annotated[
        str | None, typer.Option(help="The layer to draw, for kinds that show one.", show_default="the first")
    ] = None,
    debug: Debug = False,
) -> None:
    """Draw one figure of a posterior.

    [bold]Examples[/bold]

    wiu plot kfac.nc layer-uncertainty -o layers.png

    wiu plot kfac.nc weight-heatmap --layer fc1 -o fc1.png
    """
    from wiu_pyro.cli.reading import draw_plot

    draw_plot(file, kind, output=output, layer=layer)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    debug: Debug = False,
) -> None:
    """Write the report of a run again: DIR/report.html, one file that works offline.

    [bold]Example[/bold]

    wiu report runs/digits_mlp-digits
    """
    from wiu_pyro.cli.reading import show_report

    show_report(folder)
