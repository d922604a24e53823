"""What a sweep consists of: every combination of model, data, prior and seed as one run of `wiu run`.

The guides of a combination are fitted in one run, as they share its point estimate.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from wiu_pyro.cli.settings import DEFAULT_GUIDES, DEFAULT_MODEL, RunSettings
from wiu_pyro.errors import DataError, near_matches

__all__ = ["OWN", "SweepGrid", "parse_seeds", "read_config", "share_of_task"]

OWN = "own"  # of data or prior: the script's own
AXES = ("models", "data", "guides", "priors", "seeds")
OF_A_RUN = ("model", "data", "guides", "prior", "seed", "out", "resume", "overwrite")
COMMON = tuple(item.name for item in fields(RunSettings) if item.name not in OF_A_RUN)


@dataclass(frozen=True)
class SweepGrid:
    """The axes of a sweep, and the settings that all its runs share.

    Attributes
    ----------
    out : Path
    models, data, guides, priors : tuple of str
        ``"own"`` takes the data, or the prior, of the model's script.
    seeds : tuple of int
    common : RunSettings
    """

    out: Path
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    data: tuple[str, ...] = (OWN,)
    guides: tuple[str, ...] = DEFAULT_GUIDES
    priors: tuple[str, ...] = (OWN,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    common: RunSettings = RunSettings()

    def runs(self) -> dict[str, RunSettings]:
        """Return the settings of each run by its name, in the order they are run.

        Returns
        -------
        dict of str to RunSettings

        Raises
        ------
        DataError
            If an axis is empty, or names a thing twice.
        """
        for axis in AXES:
            values = getattr(self, axis)
            if not values or len(set(values)) < len(values):
                got = ", ".join(map(str, values)) or "none"
                raise DataError(f"--{axis} needs one value at least and each once, got {got}. Correct the list.")
        found = {}
        for model, data, prior, seed in product(self.models, self.data, self.priors, self.seeds):
            name = self._name(model, data, prior, seed)
            settings = replace(
                self.common,
                model=model,
                data=None if data == OWN else data,
                prior=None if prior == OWN else prior,
                guides=self.guides,
                seed=seed,
                out=self.out / "runs" / name,
            )
            settings.check()
            found[name] = settings
        return found

    def _name(self, model: str, data: str, prior: str, seed: int) -> str:
        words = [_slug(model)]
        words += [_slug(value) for value in (data, prior) if value != OWN]
        return "_".join([*words, f"seed{seed}"])

    def described(self) -> dict[str, Any]:
        """Return the axes as `sweep.json` holds them."""
        return {axis: list(getattr(self, axis)) for axis in AXES}


def _slug(value: str) -> str:
    """Return a name for a folder; of a path its last part, and a few letters that tell it from others."""
    place = Path(value)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", place.stem if place.suffix == ".py" else place.name).strip("-")
    return plain if place.name == value else f"{plain}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of ``"0-4"`` or ``"0,3,7"``.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of int

    Raises
    ------
    DataError
        If they cannot be read.

    Examples
    --------
    >>> parse_seeds("0-2,7")
    (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if ends is None:
            raise DataError(f"--seeds needs whole numbers or ranges, got '{part}'. For example --seeds 0-4 or 0,3,7.")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(found)


def read_config(path: Path | None, out: Path, options: Mapping[str, Any]) -> SweepGrid:
    """Return the grid of a TOML file, with what the command line gives put over it.

    Parameters
    ----------
    path : Path or None
        Keys: models, data, guides, priors, seeds (lists), and settings of `wiu run`.
    out : Path
    options : mapping
        By the same names; None where not given.

    Returns
    -------
    SweepGrid

    Raises
    ------
    DataError
        If the file cannot be read, or has a key that is not known.
    """
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"A TOML file with the grid is needed, but {path} cannot be read: {error}.") from error
    for name in content:
        if name not in (*AXES, *COMMON):
            raise DataError(f"{path} has an unknown key '{name}'. {near_matches(name, (*AXES, *COMMON))}")
    content |= {name: value for name, value in options.items() if value is not None}
    axes = {name: _axis(name, content[name]) for name in AXES if name in content}
    common = {name: value for name, value in content.items() if name in COMMON}
    return SweepGrid(out=out, **axes, common=RunSettings(**common))


def _axis(name: str, value: Any) -> tuple[Any, ...]:
    if name == "seeds" and isinstance(value, str):
        return parse_seeds(value)
    values = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    wanted = int if name == "seeds" else str
    if not isinstance(values, list | tuple) or not all(isinstance(one, wanted) for one in values):
        kind = "whole numbers" if name == "seeds" else "names"
        raise DataError(f"'{name}' needs a list of {kind}, got {value!r}. For example {name} = [...] in the file.")
    return tuple(one for one in values if one != "")


def share_of_task(names: Sequence[str], task: int | None, num_tasks: int | None) -> list[str]:
    """Return the runs of one task of an array: every `num_tasks`-th, beginning at `task`.

    Parameters
    ----------
    names : sequence of str
    task, num_tasks : int or None
        Both or none; tasks count from 0.

    Returns
    -------
    list of str

    Raises
    ------
    DataError
        If one is given without the other, or they do not fit.

    Examples
    --------
    >>> share_of_task(["a", "b", "c"], 0, 2)
    ['a', 'c']
    """
    if task is None and num_tasks is None:
        return list(names)
    if task is None or num_tasks is None or not 0 <= task < num_tasks:
        raise DataError(
            f"--task and --num-tasks go together, the task from 0 to one below their number, got --task {task} "
            f"--num-tasks {num_tasks}. Under Slurm: sbatch --array=0-9, --task $SLURM_ARRAY_TASK_ID --num-tasks 10."
        )
    return list(names)[task::num_tasks]
