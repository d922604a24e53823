"""Ensembles of a run: the members' point estimates, shared by all of them, and a posterior from each.

The first member stands at the run's own point estimate; the others are trained from fresh weights and seeds of their
own, once for all ensembles of the run, and kept in its folder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.point import PointEstimate

if TYPE_CHECKING:
    from wiu_pyro.cli.plan import Plan

__all__ = ["fit_members", "is_ensemble"]


def is_ensemble(guide_class: type) -> bool:
    """Return whether a guide is an ensemble of others."""
    from wiu_pyro.guides.ensemble import AutoEnsemble

    return isinstance(guide_class, type) and issubclass(guide_class, AutoEnsemble)


def fit_members(plan: Plan, name: str, point: PointEstimate) -> Any:
    """Fit the members of an ensemble, each from a point estimate of its own.

    Parameters
    ----------
    plan : Plan
    name : str
        ``"ensemble"`` for point estimates, else ``"ensemble-"`` and the name of the members' guide.
    point : PointEstimate
        The run's own, which is the first member's.

    Returns
    -------
    Fit
    """
    from wiu_pyro import guides
    from wiu_pyro.cli.pipeline import fit_from, fit_guide
    from wiu_pyro.guides.ensemble import PREFIX
    from wiu_pyro.infer import ensemble_of

    member = name.removeprefix(f"{PREFIX}-")
    if plan.settings.tune_prior is not None:
        warn(f"{name}: its members stand under one prior, the model's own; --tune-prior is for the other posteriors.")
    fits = []
    for number, (own, start) in enumerate(_member_points(plan, point)):
        if member == name:
            weights = {**start.weights, **start.unsampled}
            guide = guides.AutoPointEstimate(plan.model)
            found = fit_guide(own, guide, epochs=0, start=weights, name=f"{name}.member{number}")
            fits.append(start.lend_training_to(found))
            continue
        called = f"{member}.member{number}"
        own = replace(own, guides={called: guides.by_name(member)})
        fits.append(fit_from(own, called, start))
    return ensemble_of(fits)


def _member_points(plan: Plan, point: PointEstimate) -> list[tuple[Plan, PointEstimate]]:
    """Return plan (with its seed) and point estimate of each member, trained or as an earlier run left it."""
    from wiu_pyro.infer.ensemble import member_seeds

    seeds = member_seeds(plan.settings.seed, plan.settings.ensemble_size)
    alike = {"tune_prior": None, "tune_per": None} | ({} if point.track else {"track_every": 0})
    plans = [replace(plan, settings=replace(plan.settings, seed=seed, **alike)) for seed in seeds]
    found = [(plans[0], point)]
    for number, own in enumerate(plans[1:], start=1):
        path = plan.folder.member(number)
        if not path.is_file():
            _trained(own, number).save(path)
        found.append((own, PointEstimate.load(path)))
    return found


def _trained(plan: Plan, number: int) -> PointEstimate:
    from wiu_pyro.cli.pipeline import fit_guide
    from wiu_pyro.guides import AutoPointEstimate
    from wiu_pyro.infer.ensemble import fresh_start

    settings = plan.settings
    say(f"Point estimate of member {number + 1} of {settings.ensemble_size}: {settings.epochs} epochs ...")
    with fresh_start(plan.model, plan.train, seed=settings.seed, device=settings.device):
        guide = AutoPointEstimate(plan.model)
        return PointEstimate.of(fit_guide(plan, guide, epochs=settings.epochs, name=f"member{number}"))
