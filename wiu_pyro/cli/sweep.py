"""`wiu sweep`: many runs of `wiu run`, those that are complete skipped, on joblib, Dask, or as tasks of an array.

::

    DIR/sweep.json             the grid
    DIR/runs/<run>/            what `wiu run` writes, and log.txt, what it said
    DIR/results.csv            one row per posterior
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shlex
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.grid import SweepGrid, share_of_task
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.cli.sweep_table import RECORD, write_table
from wiu_pyro.errors import DataError, DeviceError, FitError, OutputError, WiuError
from wiu_pyro.report.folder import RunFolder, written_aside

__all__ = ["Workers", "is_complete", "run_sweep"]

LOG = "log.txt"
FREE = ("--out", "--guides", "--data-root", "--device")  # options that do not decide what a run holds
FREE_SWITCHES = ("--no-report",)  # the same, of those without a value


@dataclass(frozen=True)
class Workers:
    """Who runs.

    Attributes
    ----------
    jobs : int
        Processes of this machine, also of a local Dask cluster.
    dask : str or None
        Address of a Dask scheduler, or ``"local"`` for a cluster of its own on this machine.
    task, num_tasks : int or None
        The share of one task of an array.
    """

    jobs: int = 1
    dask: str | None = None
    task: int | None = None
    num_tasks: int | None = None


def run_sweep(grid: SweepGrid, workers: Workers) -> Path:
    """Run what is missing of a grid, and write the table of all that is there.

    Parameters
    ----------
    grid : SweepGrid
    workers : Workers

    Returns
    -------
    Path
        The table.

    Raises
    ------
    DataError
        If there are no workers, or the share is none of the array's.
    FitError
        If runs failed, after all others were run; says which and why.
    """
    runs = grid.runs()
    if workers.jobs < 1:
        raise DataError(f"--jobs must be at least 1, got {workers.jobs}. Leave it out for 1.")
    submit = _executor(workers)
    _record(grid, list(runs))
    mine = share_of_task(list(runs), workers.task, workers.num_tasks)
    open_runs = [name for name in mine if not is_complete(runs[name])]
    done = len(mine) - len(open_runs)
    say(f"{len(mine)} runs, {done} of them complete already, {len(open_runs)} to do.")
    failures = {}
    for number, (name, error) in enumerate(submit([(name, runs[name]) for name in open_runs]), start=1):
        say(f"[{number}/{len(open_runs)}] {name}: {error or 'done'}")
        if error:
            failures[name] = error
    table = write_table(grid.out)
    if failures:
        named = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise FitError(
            f"{len(failures)} of {len(mine)} runs failed, the others are complete ({table}). {named}. Their log.txt "
            "says more; the same command runs them again."
        )
    return table


def is_complete(settings: RunSettings) -> bool:
    """Return whether a run's folder holds all that its settings ask for.

    Parameters
    ----------
    settings : RunSettings

    Returns
    -------
    bool
        False as well where the record cannot be read, was made by other settings, or by another text of the script.
        The page counts only if the settings ask for it.
    """
    folder = RunFolder(settings.out)
    try:
        record = folder.read_record()
    except OutputError:
        return False
    held = record.get("posteriors", {})
    if not record.get("finished") or (settings.report and not folder.page.is_file()):
        return False
    if not all(name in held and folder.posterior(name).is_file() for name in settings.guides):
        return False
    same = _words(record.get("command", "")) == _words(settings.command())
    return same and record.get("model", {}).get("sha256") == _script_sha256(settings.model)


def _words(command: str) -> list[str]:
    """Return the words of a command without the options that do not decide what a run holds."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in FREE:
            next(words, None)
        elif word not in FREE_SWITCHES:
            kept.append(word)
    return kept


@functools.cache
def _script_sha256(model: str) -> str:
    """Return the hash of a model script's text; empty where there is no such script, which its run will say."""
    from wiu_pyro.nn.scripts import load_model_script

    try:
        return hashlib.sha256(load_model_script(model).path.read_bytes()).hexdigest()
    except WiuError:
        return ""


def _record(grid: SweepGrid, names: Sequence[str]) -> None:
    """Write the grid; runs of earlier calls on the same folder stay listed."""
    path, before = grid.out / RECORD, []
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["runs"]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path} must be what a sweep wrote, but is not: {error}. Choose another --out."
            ) from error
    content = {"wiu_sweep": "1", "grid": grid.described(), "runs": list(dict.fromkeys([*before, *names]))}
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _run(task: tuple[str, RunSettings]) -> tuple[str, str]:
    """Run one combination, what it says going to its log; return its name and the error, empty where there is none."""
    name, settings = task
    from wiu_pyro.cli.pipeline import run_pipeline

    settings.out.mkdir(parents=True, exist_ok=True)
    held = _readable(RunFolder(settings.out))
    settings = replace(settings, resume=held, overwrite=not held)
    with (settings.out / LOG).open("a", encoding="utf-8") as log:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                run_pipeline(settings)
            except WiuError as error:
                print(f"Error: {error}", file=log)
                return name, str(error)
            except Exception as error:  # noqa: BLE001 - one run must not end the others
                traceback.print_exc(file=log)
                return name, f"{type(error).__name__}: {error}"
    return name, ""


def _readable(folder: RunFolder) -> bool:
    try:
        folder.read_record()
    except OutputError:
        return False
    return True


Submit = Callable[[Sequence[tuple[str, RunSettings]]], Iterable[tuple[str, str]]]


def _executor(workers: Workers) -> Submit:
    if workers.dask is not None:
        return _on_dask(workers.dask, workers.jobs)
    if workers.jobs == 1:
        return lambda tasks: map(_run, tasks)
    return lambda tasks: _on_joblib(tasks, workers.jobs)


def _on_joblib(tasks: Sequence[tuple[str, RunSettings]], jobs: int) -> Iterable[tuple[str, str]]:
    from joblib import Parallel, delayed

    return Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_run)(task) for task in tasks)


def _check_threads(threads: Mapping[str, int]) -> None:
    """Refuse workers of several threads: Pyro's parameters are one store for a whole process."""
    several = [worker for worker, number in threads.items() if number > 1]
    if several:
        raise DeviceError(
            f"Dask workers of one thread each are needed, since a process fits one network at a time, but "
            f"{len(several)} of {len(threads)} have more. Start them with: dask worker ADDRESS --nthreads 1"
        )


def _on_dask(address: str, jobs: int) -> Submit:
    """Return what runs tasks on a Dask cluster; its workers need the same folder, packages and data."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise DeviceError(
            "--dask needs the package distributed, which is not installed. Install it (pip install 'wiu_pyro[dask]'), "
            "or use --jobs on this machine."
        ) from error

    def submit(tasks: Sequence[tuple[str, RunSettings]]) -> Iterable[tuple[str, str]]:
        local = {"n_workers": jobs, "threads_per_worker": 1}
        options: dict[str, Any] = local if address == "local" else {"address": address}
        with Client(**options) as client:
            _check_threads(client.nthreads())
            futures = {client.submit(_run, task, pure=False, retries=0): task[0] for task in tasks}
            for future in as_completed(list(futures)):
                try:
                    yield future.result()
                except Exception as error:  # noqa: BLE001 - a worker that died must not end the others
                    warn(f"{futures[future]}: its worker failed.")
                    yield futures[future], f"{type(error).__name__}: {error}"

    return submit
