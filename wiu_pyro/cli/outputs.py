"""The output folder of `wiu run`: checked before any computing, then written piece by piece.

Every file is written aside and moved into place, so a killed run leaves whole files only, and `--resume` goes on from
the last of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wiu_pyro.cli.settings import RunSettings, differences, settings_hash
from wiu_pyro.errors import OutputError
from wiu_pyro.report.folder import PARTIAL, RunFolder, written_aside

__all__ = ["claim", "kept_record", "save_record", "start_record"]


def claim(folder: RunFolder, settings: RunSettings) -> None:
    """Check that the folder may hold this run; nothing is changed yet.

    Raises
    ------
    OutputError
        If a file is in the way, or a run is there and neither --resume nor --overwrite was given.
    """
    blocking = next((path for path in (folder.path, *folder.path.parents) if path.exists()), None)
    if blocking is not None and not blocking.is_dir():
        raise OutputError(f"--out must be a folder, but {blocking} is a file. Choose another folder with --out.")
    holds_run = folder.record.exists() or any(folder.posteriors.glob("*.nc"))
    if holds_run and not (settings.resume or settings.overwrite):
        raise OutputError(
            f"An empty place for the results is needed, but {folder.path} already holds a run. "
            "Go on with it (--resume), replace it (--overwrite), or choose another folder (--out)."
        )
    with written_aside(folder.path / ".writable") as aside:  # fails now rather than after the training
        aside.write_text("")
    (folder.path / ".writable").unlink()


def kept_record(folder: RunFolder, settings: RunSettings, deciding: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of the run to go on with, or None to start afresh; an overwritten run is removed here.

    Parameters
    ----------
    folder : RunFolder
    settings : RunSettings
    deciding : mapping
        The settings that decide the figures; those of the kept run must be the same.

    Returns
    -------
    dict or None

    Raises
    ------
    OutputError
        If the kept run had other settings; the message says which.
    """
    if settings.resume and folder.record.exists():
        record = folder.read_record()
        changed = differences(record.get("deciding", {}), deciding)
        if changed:
            raise OutputError(
                f"--resume needs the settings of the run in {folder.path}, but {'; '.join(changed)}. "
                "Give the same settings, choose another folder (--out), or replace the run (--overwrite)."
            )
        _remove(folder.path, f"{PARTIAL}*")
        _remove(folder.posteriors, f"{PARTIAL}*")
        return record
    _remove(folder.posteriors, "*.nc")
    _remove(folder.posteriors, f"{PARTIAL}*")
    _remove(folder.path, f"{PARTIAL}*")
    for path in (folder.page, folder.point_estimate, folder.record):
        path.unlink(missing_ok=True)
    return None


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
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
