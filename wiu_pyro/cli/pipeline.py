"""`wiu run`: one point estimate shared by all, then one posterior after the other, then the page.

Each posterior is saved before the next one starts, so that a run that is cut off can be resumed.
"""

from __future__ import annotations

import dataclasses
import resource
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.ensemble import fit_members, is_ensemble
from wiu_pyro.cli.outputs import clear, clear_checkpoints, clear_leftovers, resumed_record, save_record, start_record
from wiu_pyro.cli.plan import Plan, prepare
from wiu_pyro.cli.point import PointEstimate, is_laplace, is_own, point_guide
from wiu_pyro.cli.pruning import write_pruning
from wiu_pyro.cli.reading import print_wrapped, read_posteriors, show_layers
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.cli.tracking import track_of
from wiu_pyro.report import answer, write_report
from wiu_pyro.report.folder import PRUNING
from wiu_pyro.report.numbers import plain, seconds_in_words

__all__ = ["fit_from", "fit_guide", "run_pipeline"]

POINT = "point-estimate"
CHECKPOINT_SECONDS = 1.0  # an epoch of a small network is shorter
PACKAGES = ("wiu_pyro", "torch", "pyro-ppl", "arviz", "xarray", "numpy")


def run_pipeline(settings: RunSettings) -> None:
    """Fit, export, tabulate and report.

    Parameters
    ----------
    settings : RunSettings
    """
    began = time.perf_counter()
    plan = prepare(settings)
    record = resumed_record(plan.folder, plan.settings, plan.deciding()) or _new_record(plan)
    _note_all_guides(record, settings)
    spent = float(record.get("seconds") or 0.0)
    open_guides = [name for name in plan.guides if not _is_done(plan, record, name)]
    for name in plan.guides.keys() - open_guides:
        say(f"{name}: kept from the earlier run.")
        if settings.prune and not plan.folder.intervention(PRUNING, name).is_file():
            warn(f"{name} was not pruned: its fit is gone with the earlier run. Fit it again with --overwrite --prune.")
    if open_guides:
        _fit_all(plan, record, open_guides)
    record |= {
        "finished": True,
        "seconds": spent + time.perf_counter() - began,
        "peak_memory_bytes": max(_peak_memory(), record.get("peak_memory_bytes") or 0),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    save_record(plan.folder, plain(record))
    _show(plan, refitted=bool(open_guides))


def _note_all_guides(record: dict[str, Any], settings: RunSettings) -> None:
    """Let the record ask for all guides the folder holds or will hold, also those of the run that is gone on with."""
    guides = tuple(dict.fromkeys([*record["settings"]["guides"], *settings.guides]))
    record["settings"] |= {"guides": list(guides), "report": settings.report}
    record |= {"finished": False, "command": dataclasses.replace(settings, guides=guides).command()}


def _new_record(plan: Plan) -> dict[str, Any]:
    return start_record(
        plan.settings,
        plan.deciding(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        device=plan.settings.device,
        versions={"python": sys.version.split()[0]} | {name: _version(name) for name in PACKAGES},
        **plan.described(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _is_done(plan: Plan, record: dict[str, Any], name: str) -> bool:
    return name in record["posteriors"] and plan.folder.posterior(name).is_file()


def _fit_all(plan: Plan, record: dict[str, Any], names: list[str]) -> None:
    clear_leftovers(plan.folder)
    if not plan.settings.resume:
        clear_checkpoints(plan.folder)
    point, finished = _point_estimate(plan, record)
    for name in names:
        record["posteriors"][name] = _fit_one(plan, name, point, finished.pop(name, None))
        save_record(plan.folder, plain(record))


def _point_estimate(plan: Plan, record: dict[str, Any]) -> tuple[PointEstimate, dict[str, Any]]:
    """Return the weights all posteriors start from, and the fit of the Laplace guide that was trained to find them."""
    path, epochs = plan.folder.point_estimate, plan.settings.epochs
    if path.is_file() and record["point_estimate"]:
        say("Point estimate: kept from the earlier run.")
        return PointEstimate.load(path), {}
    say(f"Point estimate: {epochs} epochs on {len(plan.train):,} images ...")
    began = time.perf_counter()
    trained, guide = point_guide(plan.guides, plan.model)
    fit = fit_guide(plan, guide, epochs=epochs, name=POINT)
    point = PointEstimate.of(fit)
    if not record["posteriors"]:
        clear(plan.folder)  # only now: bad input shows by here at the latest, and leaves everything as it was
    record["point_estimate"] = point.described() | {"epochs": epochs, "fit_seconds": time.perf_counter() - began}
    point.save(path)
    save_record(plan.folder, plain(record))
    return point, {trained: fit} if trained else {}


def _fit_one(plan: Plan, name: str, point: PointEstimate, finished: Any = None) -> dict[str, Any]:
    """Fit one posterior from the point estimate, export and save it; return what `run.json` says of it."""
    began = time.perf_counter()
    fit = finished or fit_from(plan, name, point)
    fitted = time.perf_counter()
    path = _export(plan, name, fit)
    exported = time.perf_counter()
    if plan.settings.prune:
        write_pruning(plan, name, fit)
    if fit.convergence.converged is False:
        warn(
            f"{name} has not converged: {fit.convergence.detail.rstrip('.')}. Read its uncertainties as provisional, "
            "or train for more epochs (--epochs, --vi-epochs)."
        )
    entry = {
        "file": str(path.relative_to(plan.folder.path)),
        "bytes": path.stat().st_size,
        "guide": plan.guides[name].__name__,
        "fit_seconds": None if finished else fitted - began,  # None: trained as the point estimate
        "export_seconds": exported - fitted,
        "convergence": dataclasses.asdict(fit.convergence),
        "peak_memory_bytes": _peak_memory(),
    }
    say(f"{name}: done in {seconds_in_words(time.perf_counter() - began)}.")
    return entry


def fit_from(plan: Plan, name: str, point: PointEstimate) -> Any:
    """Fit one posterior from the point estimate; a Laplace guide stays there and needs the curvature alone."""
    guide_class, epochs = plan.guides[name], plan.settings.vi_epochs
    if is_ensemble(guide_class):
        return fit_members(plan, name, point)
    start = {**point.weights, **point.unsampled}
    if is_laplace(guide_class):
        say(f"{name}: curvature at the point estimate ...")
        return point.lend_training_to(fit_guide(plan, guide_class(plan.model), epochs=0, start=start, name=name))
    say(f"{name}: {epochs} epochs ...")
    if is_own(guide_class):
        return fit_guide(plan, guide_class(plan.model), epochs=epochs, start=start, name=name)
    guide = guide_class(plan.model, init_loc_fn=point.as_initial_values())
    return fit_guide(plan, guide, epochs=epochs, start=point.unsampled or None, name=name)


def _tuning(plan: Plan, guide: Any) -> dict[str, str | None]:
    """Return how the prior of a guide is to be tuned: nothing for those that are none of Laplace."""
    asked = {"tune_prior": plan.settings.tune_prior, "tune_per": plan.settings.tune_per}
    return asked if is_laplace(type(guide)) and is_own(type(guide)) else {}


def fit_guide(plan: Plan, guide: Any, *, epochs: int, start: Any = None, name: str) -> Any:
    """Fit a guide; a fit of that name that was killed goes on with --resume."""
    import wiu_pyro as wiu

    settings = plan.settings
    return wiu.fit(
        plan.model,
        guide,
        plan.train,
        epochs=epochs,
        seed=settings.seed,
        start=start,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        device=settings.device,
        augment=plan.script.augment if settings.augment else None,
        progress=True,
        track=track_of(guide, epochs, settings.track_every),
        checkpoint=plan.folder.checkpoint(name),
        checkpoint_seconds=CHECKPOINT_SECONDS,
        **_tuning(plan, guide),
    )


def _export(plan: Plan, name: str, fit: Any) -> Path:
    import wiu_pyro as wiu

    settings = plan.settings
    idata = wiu.to_inference_data(
        fit,
        data=plan.test,
        num_samples=settings.num_samples,
        seed=settings.seed,
        split="test",
        model_name=plan.script.title,
        data_name=plan.test.name,
        class_names=plan.test.class_names,
        input_scaling=plan.test.scaling,
    )
    target = plan.folder.posterior(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return wiu.save(idata, target)


def _peak_memory() -> int:
    """Return the most memory the process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _show(plan: Plan, *, refitted: bool) -> None:
    """Print the layer tables and the answer, and write the page, unless it is not wanted."""
    folder = plan.folder
    posteriors, missing = read_posteriors(folder)
    for posterior in posteriors:
        show_layers(posterior)
        print()
    print_wrapped(answer(posteriors).text)
    print()
    if plan.settings.report:
        print(f"Report: {write_report(folder.path, posteriors, missing=missing)}")
        return
    if refitted:
        folder.page.unlink(missing_ok=True)  # of an earlier run: it lacks what was fitted now
    say(f"No page was asked for. Write it with: wiu report {shlex.quote(str(folder.path))}")
