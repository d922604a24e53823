"""`wiu run`: one point estimate shared by all, then one posterior after the other, then the page.

Each posterior is saved before the next one starts, so that a run that is cut off can be resumed.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.outputs import kept_record, save_record, start_record
from wiu_pyro.cli.plan import Plan, prepare
from wiu_pyro.cli.point import PointEstimate, point_guide
from wiu_pyro.cli.reading import print_wrapped, read_posteriors, show_layers
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.report import answer, write_report
from wiu_pyro.report.numbers import plain, seconds_in_words

__all__ = ["run_pipeline"]

PACKAGES = ("wiu_pyro", "torch", "pyro-ppl", "arviz", "xarray", "numpy")


def run_pipeline(settings: RunSettings) -> None:
    """Fit, export, tabulate and report.

    Parameters
    ----------
    settings : RunSettings
    """
    began = time.perf_counter()
    plan = prepare(settings)
    record = kept_record(plan.folder, plan.settings, plan.deciding()) or _new_record(plan)
    record |= {"finished": False, "command": settings.command()}
    spent = float(record.get("seconds") or 0.0)
    open_guides = [name for name in plan.guides if not _is_done(plan, record, name)]
    for name in plan.guides.keys() - open_guides:
        say(f"{name}: kept from the earlier run.")
    if open_guides:
        _fit_all(plan, record, open_guides)
    record |= {
        "finished": True,
        "seconds": spent + time.perf_counter() - began,
        "peak_memory_bytes": max(_peak_memory(), record.get("peak_memory_bytes") or 0),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    save_record(plan.folder, plain(record))
    _show(plan)


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
    save_record(plan.folder, plain(record))
    point = _point_estimate(plan, record)
    for name in names:
        record["posteriors"][name] = _fit_one(plan, name, point)
        save_record(plan.folder, plain(record))


def _point_estimate(plan: Plan, record: dict[str, Any]) -> PointEstimate:
    """Return the weights all posteriors start from: those of the run resumed, or newly trained."""
    path, epochs = plan.folder.point_estimate, plan.settings.epochs
    if path.is_file() and record["point_estimate"]:
        say("Point estimate: kept from the earlier run.")
        return PointEstimate.load(path)
    say(f"Point estimate: {epochs} epochs on {len(plan.train):,} images ...")
    began = time.perf_counter()
    point = PointEstimate.of(_fit(plan, point_guide(plan.model), epochs=epochs))
    record["point_estimate"] = point.described() | {"epochs": epochs, "fit_seconds": time.perf_counter() - began}
    point.save(path)
    return point


def _fit_one(plan: Plan, name: str, point: PointEstimate) -> dict[str, Any]:
    """Fit one posterior from the point estimate, export and save it; return what `run.json` says of it."""
    guide_class, settings = plan.guides[name], plan.settings
    around_point = hasattr(guide_class, "laplace_approximation")
    say(f"{name}: {'curvature at the point estimate' if around_point else f'{settings.epochs} epochs'} ...")
    began = time.perf_counter()
    fit = _fit(plan, guide_class(plan.model), epochs=0 if around_point else settings.epochs, start=point.weights)
    if around_point:
        fit = point.lend_training_to(fit)
    fitted = time.perf_counter()
    path = _export(plan, name, fit)
    convergence = fit.convergence
    if convergence.converged is False:
        warn(f"{name} has not converged ({convergence.detail}): read its uncertainties as provisional.")
    entry = {
        "file": str(path.relative_to(plan.folder.path)),
        "bytes": path.stat().st_size,
        "guide": guide_class.__name__,
        "fit_seconds": fitted - began,
        "export_seconds": time.perf_counter() - fitted,
        "epochs": 0 if around_point else settings.epochs,
        "convergence": dataclasses.asdict(convergence),
        "peak_memory_bytes": _peak_memory(),
    }
    say(f"{name}: done in {seconds_in_words(entry['fit_seconds'] + entry['export_seconds'])}.")
    return entry


def _fit(plan: Plan, guide: Any, *, epochs: int, start: Any = None) -> Any:
    import wiu_pyro as wiu

    settings = plan.settings
    return wiu.fit(
        plan.model,
        guide,
        plan.train.tensors,
        epochs=epochs,
        seed=settings.seed,
        start=start,
        batch_size=settings.batch_size,
        device=settings.device,
    )


def _export(plan: Plan, name: str, fit: Any) -> Path:
    import wiu_pyro as wiu

    settings = plan.settings
    idata = wiu.to_inference_data(
        fit,
        data=plan.test.tensors,
        num_samples=settings.num_samples,
        seed=settings.seed,
    )
    target = plan.folder.posterior(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return wiu.save(idata, target)


def _peak_memory() -> int:
    """Return the most memory the process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _show(plan: Plan) -> None:
    """Print the layer tables and the answer, and write the page."""
    folder = plan.folder
    posteriors, missing = read_posteriors(folder)
    for posterior in posteriors:
        show_layers(posterior)
        print()
    print_wrapped(answer(posteriors).text)
    print()
    print(f"Report: {write_report(folder.path, posteriors, missing=missing)}")
