"""The output folder of `wiu run`: checked before any computing, then written piece by piece.

Every file is written aside and moved into place, so a killed run leaves whole files only, and `--resume` goes on from
the last of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wiu_pyro.cli.settings import RunSettings, differences, settings_hash
from wiu_pyro.errors import OutputError
from wiu_pyro.report.folder import CHECKPOINT, PARTIAL, RunFolder, written_aside

__all__ = ["claim", "clear", "clear_checkpoints", "clear_leftovers", "resumed_record", "save_record", "start_record"]


def claim(folder: RunFolder, settings: RunSettings) -> None:
    """Check that the folder may hold this run; nothing is written or made yet.

    Raises
    ------
    OutputError
        If a file is in the way, the place cannot be written to, or a run is there and neither --resume nor --overwrite
        was given.
    """
    nearest = next(path for path in (folder.path.absolute(), *folder.path.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"--out must be a folder, but {nearest} is a file. Choose another folder with --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out must be a place that can be written to, but {nearest} is not. Choose another folder with --out."
        )
    holds_run = folder.record.exists() or any(folder.posteriors.glob("*.nc"))
    if holds_run and not (settings.resume or settings.overwrite):
        raise OutputError(
            f"An empty place for the results is needed, but {folder.path} already holds a run. "
            "Go on with it (--resume), replace it (--overwrite), or choose another folder (--out)."
        )


def resumed_record(folder: RunFolder, settings: RunSettings, deciding: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of the run to go on with, or None where this one starts afresh.

    Parameters
    ----------
    folder : RunFolder
    settings : RunSettings
    deciding : mapping
        The settings that decide the figures; those of the resumed run must be the same.

    Returns
    -------
    dict or None

    Raises
    ------
    OutputError
        If the resumed run had other settings; the message says which.
    """
    if not (settings.resume and folder.record.exists()):
        return None
    record = folder.read_record()
    changed = differences(record.get("deciding", {}), deciding)
    if changed:
        raise OutputError(
            f"--resume needs the settings of the run in {folder.path}, but {'; '.join(changed)}. "
            "Give the same settings, choose another folder (--out), or replace the run (--overwrite)."
        )
    return record


def clear(folder: RunFolder) -> None:
    """Remove an earlier run from its folder, and nothing else that lies there."""
    tables = (*folder.posteriors.glob("*.nc"), *folder.path.glob("interventions/*/*.nc"))
    members = folder.member(0).parent.glob("*.pt")
    for path in (folder.record, folder.page, folder.point_estimate, *members, *tables):
        path.unlink(missing_ok=True)
    clear_checkpoints(folder)
    clear_leftovers(folder)


def clear_checkpoints(folder: RunFolder) -> None:
    """Remove what a killed run kept of a fit under way: a run that does not go on with it starts that fit anew."""
    for path in folder.posteriors.glob(f"{CHECKPOINT}*"):
        path.unlink(missing_ok=True)


def clear_leftovers(folder: RunFolder) -> None:
    """Remove the unfinished files of a run that was killed."""
    for place in (folder.path, folder.posteriors):
        for path in place.glob(f"{PARTIAL}*"):
            path.unlink()


def start_record(settings: RunSettings, deciding: Mapping[str, Any], **described: Any) -> dict[str, Any]:
    """Return the record of a run that has fitted nothing yet."""
    return {
        "wiu_run": "1",
        "finished": False,
        "command": settings.command(),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()},
        "deciding": dict(deciding),
        "settings_hash": settings_hash(deciding),
        "point_estimate": {},
        "posteriors": {},
        **described,
    }


def save_record(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Write `run.json` in one move."""
    with written_aside(folder.record) as aside:
        aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
