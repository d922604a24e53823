"""Move what was written aside to its name in one step, file or folder, and clear away what a killed process left."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path

__all__ = ["ASIDE", "move_into_place", "remove", "remove_leftovers"]

ASIDE = ".tmp"  # how the name of what is being written ends
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def move_into_place(aside: Path, target: Path) -> None:
    """Replace `target` by `aside`, a file by a file or a folder by a folder.

    Linux exchanges two folders in one step. Elsewhere an old folder is moved away first: a process killed between the
    two steps leaves it beside, under a name that ends in ``.old``, and the next `move_into_place` puts nothing at risk.

    Parameters
    ----------
    aside, target : Path
        In one folder.

    Raises
    ------
    OSError
        If the system refuses.
    """
    if not target.is_dir():
        os.replace(aside, target)
        return
    if not _exchanged(aside, target):
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.replace(target, old)
        os.replace(aside, target)
        os.replace(old, aside)
    remove(aside)


def _exchanged(one: Path, other: Path) -> bool:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(target: Path) -> None:
    """Remove what processes that are no more began to write for `target`; one under way keeps its own.

    Parameters
    ----------
    target : Path
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.tmp")
    for path in target.parent.glob(f".{glob_escaped(target.name)}.*.tmp"):
        found = pattern.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            remove(path)


def glob_escaped(name: str) -> str:
    """Return a name as a pattern that matches it alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
