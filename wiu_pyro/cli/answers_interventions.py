"""Pruning and deterministic layers for `wiu answers`: the posteriors of all seeds at hand again, without training.

A Laplace posterior is its curvature at the run's point estimate, computed again. A mean field is put together from the
exact moments in its file.
"""

from __future__ import annotations

import json
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
from wiu_pyro.report.answers import note_missing, read_answers, remove_answer, write_answer

__all__ = ["InterventionOptions", "fit_again", "write_interventions"]

ASKED = "asked"  # the attribute that keeps the question a table answers
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

    Tables that answer the same question of the same runs are kept.

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
        asked = {table: _question(seeds, table, options) for table in INTERVENTIONS}
        asked = {table: question for table, question in asked.items() if not _is_there(folder, name, table, question)}
        if not asked:
            continue
        try:
            fits = [_of_seed(seeds, place, plan, name) for place in range(len(seeds.folders))]
        except WiuError as error:
            for table in asked:
                _leave_out(folder, (name, table), error)
            continue
        for table, question in asked.items():
            _write(folder, (name, table), question, fits, plan, options)
    return folder


def _question(seeds: Seeds, table: str, options: InterventionOptions) -> str:
    """Return what a table answers: of which trainings, at what cost."""
    runs = [
        [folder.path.name, record["created_at"]] for folder, record in zip(seeds.folders, seeds.records, strict=True)
    ]
    _, names = INTERVENTIONS[table]
    return json.dumps({"runs": runs} | {name: getattr(options, name) for name in names})


def _is_there(folder: Path, posterior: str, table: str, question: str) -> bool:
    """Return whether a table is there already and answers the same question."""
    try:
        found = read_answers(folder.parent).table(folder.name, table, posterior)
    except WiuError:  # none, or one that cannot be read
        return False
    return found.attrs.get(ASKED) == question


def _write(
    folder: Path,
    place: tuple[str, str],
    question: str,
    fits: list[Any],
    plan: Plan,
    options: InterventionOptions,
) -> None:
    posterior, name = place
    say(f"{folder.name}, {posterior}: {name.replace('_', ' ')} ...")
    ask, _ = INTERVENTIONS[name]
    try:
        table = ask(fits, plan, options)
    except WiuError as error:
        _leave_out(folder, place, error)
        return
    write_answer(folder, table.assign_attrs({ASKED: question}), posterior=posterior, name=name)
    note_missing(folder, posterior=posterior, name=name, reason=None)


def _leave_out(folder: Path, place: tuple[str, str], error: WiuError) -> None:
    """Say why there is no table, here and in the record; an earlier one answers another question."""
    posterior, name = place
    warn(f"{folder.name}, {posterior}: no {name.replace('_', ' ')}: {error}")
    remove_answer(folder, posterior=posterior, name=name)
    note_missing(folder, posterior=posterior, name=name, reason=str(error))


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


# what is asked, and the options that its answer depends on
INTERVENTIONS: dict[str, tuple[Callable[[list[Any], Plan, InterventionOptions], xr.Dataset], tuple[str, ...]]] = {
    "pruning": (_pruned, ("prune_images",)),
    "stochastic_layers": (
        _deterministic,
        ("ood", "images", "num_samples", "effect_draws", "effect_images", "families", "refit_epochs"),
    ),
}


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
    from wiu_pyro.infer.drawn_statistics import settle_at_draws
    from wiu_pyro.nn import as_batches, unsampled

    guide = guide_class(plan.model)
    start = {**point.weights, **point.unsampled}
    fit = wiu.fit(plan.model, guide, plan.train, epochs=0, start=start, seed=plan.settings.seed)
    means, sds = _moments(plan.folder.posterior(name), fit.structure)
    with torch.no_grad():
        guide.loc.copy_(guide.pack(means))
        guide.log_scale.copy_(guide.pack(sds).log())
    batches = as_batches(plan.train, batch_size=plan.settings.batch_size)
    settle_at_draws(plan.model, guide, batches, torch.device("cpu"))  # as when the run's training ended
    return replace(fit, point_estimate=means, unsampled=unsampled(plan.model, fit.structure.priors))


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
