"""The settings of a finished run, as its record holds them, for commands that go back to it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.errors import GuideError, OutputError, near_matches
from wiu_pyro.report.folder import RunFolder

__all__ = ["settings_of"]

PATHS = ("out", "data_root")


def settings_of(run: RunFolder, guides: str | None, data_root: Path | None) -> RunSettings:
    """Return the settings of a run, for some of its posteriors.

    Parameters
    ----------
    run : RunFolder
    guides : str or None
        Names with commas; None takes all that the run has.
    data_root : Path or None
        In the place of the run's own.

    Returns
    -------
    RunSettings

    Raises
    ------
    GuideError
        If the run lacks one of them, or has none.
    OutputError
        If its point estimate is missing.
    """
    record = run.read_record()
    held: dict[str, Any] = {
        name: value for name, value in record["settings"].items() if name in {item.name for item in fields(RunSettings)}
    }
    for name in PATHS:
        held[name] = Path(held[name]) if held.get(name) else None
    known = list(record.get("posteriors", {}))
    chosen = known if guides is None else [name.strip() for name in guides.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            raise GuideError(f"The run in {run.path} has no posterior '{name}'. {near_matches(name, known)}")
    if not chosen:
        raise GuideError(f"A run with a posterior is needed, but {run.path} has none. Go on with it: --resume.")
    if not run.point_estimate.is_file():
        raise OutputError(f"The run's point estimate is needed, but {run.point_estimate} is not there. Run it again.")
    held |= {"guides": tuple(chosen), "out": run.path, "resume": False, "overwrite": False}
    return RunSettings(**(held | ({"data_root": data_root} if data_root is not None else {})))
