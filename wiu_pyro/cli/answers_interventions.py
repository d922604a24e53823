"""Pruning and deterministic layers for `wiu answers`: the posteriors of all seeds at hand again, without training.

A Laplace posterior is its curvature at the run's point estimate, computed again. A mean field is put together from the
exact moments in its file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from wiu_pyro.cli.answers import Seeds
from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.plan import Plan
from wiu_pyro.cli.point import PointEstimate, is_laplace
from wiu_pyro.errors import GuideError, WiuError
from wiu_pyro.report.answers import write_answer

__all__ = ["InterventionOptions", "fit_again", "write_interventions"]

SPARSITIES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class InterventionOptions:
    """What the interventions are to cost.

    Attributes
    ----------
    ood : str or None
        Data out of distribution.
    images : int
        Test images that sets of layers are judged on.
    prune_images : int or None
        Test images that pruned networks are judged on; None takes all.
    num_samples : int
        Draws behind every set of layers.
    effect_draws, effect_images : int
        Behind the layers' effects.
    families : tuple of str or None
        Of sets of layers: see `wiu_pyro.interventions.stochastic_layers`; all of them when None.
    refit_epochs : int
        Of posteriors of some layers alone, where those are trained; 0 leaves them out.
    """

    ood: str | None = None
    images: int = 2_000
    prune_images: int | None = None
    num_samples: int = 50
    effect_draws: int = 20
    effect_images: int = 250
    families: tuple[str, ...] | None = None
    refit_epochs: int = 0


def write_interventions(
    seeds: Seeds, out: Path, options: InterventionOptions, *, data_root: Path | None = None
) -> Path:
    """Write what pruning and deterministic layers make of each posterior, over its seeds.

    Tables that are there already are kept.

    Parameters
    ----------
    seeds : Seeds
    out : Path
    options : InterventionOptions
    data_root : Path, optional

    Returns
    -------
    Path
        The network's folder.
    """
    folder = out / seeds.name
    plan = seeds.plan(0, seeds.guides, data_root)
    for name in seeds.guides:
        asked = {"pruning": _pruned, "stochastic_layers": _deterministic}
        asked = {table: ask for table, ask in asked.items() if not (folder / name / f"{table}.nc.gz").is_file()}
        if not asked:
            continue
        try:
            fits = [_of_seed(seeds, place, plan, name) for place in range(len(seeds.folders))]
        except WiuError as error:
            warn(f"{seeds.name}, {name}: no interventions: {error}")
            continue
        for table, ask in asked.items():
            _write(folder, (name, table), ask, fits, plan, options)
    return folder


def _write(
    folder: Path,
    place: tuple[str, str],
    ask: Callable[[list[Any], Plan, InterventionOptions], xr.Dataset],
    fits: list[Any],
    plan: Plan,
    options: InterventionOptions,
) -> None:
    posterior, name = place
    say(f"{folder.name}, {posterior}: {name.replace('_', ' ')} ...")
    try:
        write_answer(folder, ask(fits, plan, options), posterior=posterior, name=name)
    except WiuError as error:
        warn(f"{folder.name}, {posterior}: {error}")


def _pruned(fits: list[Any], plan: Plan, options: InterventionOptions) -> xr.Dataset:
    from wiu_pyro.interventions import prune

    # without training data: the brain surgeon's curvature is that of a Kronecker-factored posterior alone
    images = plan.test.first(options.prune_images)
    return prune(fits, images, sparsities=SPARSITIES, rankings=("global",))


def _deterministic(fits: list[Any], plan: Plan, options: InterventionOptions) -> xr.Dataset:
    from wiu_pyro.cli.stochastic_command import images_away
    from wiu_pyro.interventions import stochastic_layers

    away = None if options.ood is None else images_away(options.ood, plan, plan.settings.data_root)
    return stochastic_layers(
        fits,
        plan.test.first(options.images),
        ood=None if away is None else away[: options.images],
        train_data=plan.train if options.refit_epochs else None,
        refit_epochs=options.refit_epochs or None,
        **({} if options.families is None else {"families": options.families}),
        num_samples=options.num_samples,
        effect_draws=options.effect_draws,
        effect_images=options.effect_images,
    )


def _of_seed(seeds: Seeds, place: int, plan: Plan, name: str) -> Any:
    folder, record = seeds.folders[place], seeds.records[place]
    own = replace(plan, folder=folder, settings=replace(plan.settings, seed=record["settings"]["seed"], track_every=0))
    say(f"{folder.path.name}, {name}: the posterior again ...")
    fit = fit_again(own, name, PointEstimate.load(folder.point_estimate))
    verdict = record["posteriors"][name]["convergence"]
    return replace(fit, convergence=type(fit.convergence)(**verdict))


def fit_again(plan: Plan, name: str, point: PointEstimate) -> Any:
    """Return a finished run's posterior as a fit, without training.

    Parameters
    ----------
    plan : Plan
        Of the run.
    name : str
        The guide's command-line name.
    point : PointEstimate
        The run's.

    Returns
    -------
    Fit

    Raises
    ------
    GuideError
        If the posterior is neither Laplace nor a mean field.
    """
    from wiu_pyro.cli.pipeline import fit_from
    from wiu_pyro.guides import AutoMeanField

    guide_class = plan.guides[name]
    if is_laplace(guide_class):
        return fit_from(plan, name, point)
    if not issubclass(guide_class, AutoMeanField):
        raise GuideError(
            f"A Laplace or a mean-field posterior is needed, but '{name}' cannot be put together from its file. "
            "Prune it while it is fitted: wiu run --prune."
        )
    return _mean_field(plan, name, guide_class, point)


def _mean_field(plan: Plan, name: str, guide_class: type, point: PointEstimate) -> Any:
    import torch

    import wiu_pyro as wiu

    guide = guide_class(plan.model)
    start = {**point.weights, **point.unsampled}
    fit = wiu.fit(plan.model, guide, plan.train, epochs=0, start=start, seed=plan.settings.seed)
    means, sds = _moments(plan.folder.posterior(name), fit.structure)
    with torch.no_grad():
        guide.loc.copy_(guide.pack(means))
        guide.log_scale.copy_(guide.pack(sds).log())
    return replace(fit, point_estimate=means)


def _moments(path: Path, structure: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return mean and sd of each site from a posterior's file."""
    import torch

    from wiu_pyro import schema
    from wiu_pyro.export import load

    idata = load(path)
    means: dict[str, Any] = {}
    sds: dict[str, Any] = {}
    for layer in structure.layers:
        data = schema.dataset(idata, schema.moments_group(layer.name))
        prefixes = schema.moment_parameters(data)
        for parameter, site in layer.sites.items():
            for found, part in ((means, "mean"), (sds, "sd")):
                found[site] = torch.as_tensor(data[f"{prefixes[parameter]}{part}"].isel(chain=0).values.copy())
    return means, sds
