"""`wiu stochastic-layers`: what a run's posteriors predict when only some of their layers are uncertain."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from wiu_pyro.cli.console import say
from wiu_pyro.cli.options import DataRoot, Debug, Report
from wiu_pyro.errors import DataError

__all__ = ["images_away", "stochastic_layers"]


def stochastic_layers(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    guides: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,...", help="Posteriors to take.", show_default="all of the run")
    ] = None,
    ood: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER|TAR", help="Data out of distribution, for the AUROC.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Draws behind every set of layers.")] = 100,
    effect_draws: Annotated[int, typer.Option(help="Pairs of draws behind the layers' effects; 0: none.")] = 50,
    refit: Annotated[bool, typer.Option(help="Also fit posteriors to each set of layers alone.")] = True,
    data_root: DataRoot = None,
    report: Report = True,
    debug: Debug = False,
) -> None:
    """Ask whether the last layer is enough: predictions of a run with only some of its layers uncertain.

    Each posterior is fitted again from the run's point estimate, with the run's settings. Writes
    DIR/interventions/stochastic-layers/<guide>.nc and DIR/report.html, and prints what was found. Refits of a
    variational posterior are trained, one for each set of layers: --no-refit leaves them out.

    [bold]Examples[/bold]

    wiu stochastic-layers runs/digits_mlp-digits --guides laplace-kfac

    wiu stochastic-layers runs/mnist --ood fashion-mnist --no-refit
    """
    from wiu_pyro import diagnostics, interventions
    from wiu_pyro.cli.pipeline import fit_from
    from wiu_pyro.cli.plan import load
    from wiu_pyro.cli.point import PointEstimate
    from wiu_pyro.cli.reading import print_wrapped, show_report
    from wiu_pyro.cli.run_settings import settings_of
    from wiu_pyro.report.folder import STOCHASTIC_LAYERS, RunFolder, written_aside

    run = RunFolder(folder)
    plan = load(settings_of(run, guides, data_root))
    away = None if ood is None else images_away(ood, plan, data_root)
    point = PointEstimate.load(run.point_estimate)
    options = {"num_samples": num_samples, "effect_draws": effect_draws}
    if not refit:
        options["kinds"] = ("restricted",)
    for name in plan.guides:
        fit = fit_from(plan, name, point)
        say(f"{name}: sets of layers ...")
        table = interventions.stochastic_layers(
            fit, plan.test, ood=away, train_data=plan.train, seed=plan.settings.seed, **options
        )
        with written_aside(run.intervention(STOCHASTIC_LAYERS, name)) as aside:
            table.to_netcdf(aside, engine="h5netcdf")
        print_wrapped(f"{name}: {diagnostics.stochastic_layers_statement(table)}")
        print()
    if report:
        show_report(folder)
    else:
        say(f"The page was left as it is. Write it with: wiu report {shlex.quote(str(folder))}")


def images_away(name: str, plan: Any, data_root: Path | None) -> Any:
    """Return the images of data out of distribution in the form of the run's.

    Grey images get the run's channels, all alike; another size is brought to the run's, smoothed where it is smaller.

    Parameters
    ----------
    name : str
        Name, folder or tar.
    plan : Plan
    data_root : Path or None

    Returns
    -------
    Tensor, (num_images, channels, height, width)

    Raises
    ------
    DataError
        If they have colours and the run's have none.
    """
    from torch.nn.functional import interpolate

    from wiu_pyro import datasets

    away, scaling = datasets.load(name, split="test", root=data_root or plan.settings.data_root), plan.test.prepare
    channels, *size = plan.test.pixels.shape[1:]
    if away.in_channels not in (1, channels):
        raise DataError(
            f"Images out of distribution need {channels} channels, as the run's have, or one, but those of {name} have "
            f"{away.in_channels}. Choose other data."
        )
    pixels = away.pixels
    if tuple(pixels.shape[2:]) != tuple(size):
        say(f"Images of {name} are brought from {tuple(pixels.shape[2:])} to {tuple(size)} pixels.")
        pixels = interpolate(pixels.float(), size=tuple(size), mode="bilinear", antialias=True)
        pixels = pixels.round().clamp(0, 255).to(away.pixels.dtype)
    away = replace(away, pixels=pixels.expand(-1, channels, -1, -1))
    return (away.normalised(scaling.mean, scaling.sd) if scaling.mean else away).images
