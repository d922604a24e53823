"""The file of a training under way: what it belongs to, and when it is written.

Of several processes that share a training the first writes, and all read the same file: parameters are the same in all,
and the random states of all stand in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wiu_pyro.curvature import Checkpoint, Processes, fingerprint
from wiu_pyro.errors import DataError, FitError
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import (
    Batches,
    ModelStructure,
    as_batches,
    base_distribution,
    count_batches,
    describe_prior,
    is_normal,
    numbered_batches,
    weight_module,
)

if TYPE_CHECKING:
    from wiu_pyro.infer.run import Run

__all__ = ["TrainingFile", "belonging", "training_file", "training_path"]

NOT_DECIDING = ("checkpoint", "checkpoint_seconds", "progress", "curvature_batch_size", "curvature_rounds")
ROWS = 1000  # of the data that are looked at
PLAIN = (str, int, float, bool, type(None))


def training_path(path: str | Path) -> Path:
    """Return where the training lies, beside the curvature pass of the same fit."""
    return Path(path).with_name(f"{Path(path).name}.training")


class TrainingFile:
    """The checkpoint of a training; without a path, none.

    Parameters
    ----------
    path : Path or None
    belongs_to : dict of str to str
        What `belonging` returned.
    seconds : float
        Least time between two writings.
    processes : Processes
        Those that share the training.
    """

    def __init__(self, path: Path | None, belongs_to: dict[str, str], *, seconds: float, processes: Processes) -> None:
        self.processes = processes
        first = dataclasses.replace(processes, rank=0)
        self.file: Checkpoint | None = None
        if path is not None:
            self.file = Checkpoint(
                path, belongs_to, seconds=seconds, processes=first, what="a training", error=FitError
            )

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state to go on from, or None where there is none.

        Parameters
        ----------
        device : device

        Returns
        -------
        dict or None

        Raises
        ------
        FitError
            If the file is none of these, or belongs to another fit; says what differs.
        """
        if self.file is None:
            return None
        state = self.file.read(device)
        self.processes.refuse_differences(checkpoint=None if state is None else state["epoch"])
        return state

    def write(self, state: Callable[[], dict[str, Any]], *, always: bool = False) -> None:
        """Write the state, if it is time.

        Parameters
        ----------
        state : callable
            Asked in all processes, as they put it together.
        always : bool
        """
        if self.file is None or (self.processes.count == 1 and not (always or self.file.is_due())):
            return
        found = state()
        if self.processes.rank == 0 and (always or self.file.is_due()):
            self.file.write(found)

    def remove(self) -> None:
        """Remove the file: the fit is done."""
        if self.file is not None and self.processes.rank == 0:
            self.file.remove()


def training_file(
    run: Run,
    batches: Batches,
    *,
    settings: Mapping[str, Any],
    start: Mapping[str, torch.Tensor] | None,
    validation: Any,
) -> TrainingFile:
    """Return the file of a run's training, as its ``config.checkpoint`` says.

    Parameters
    ----------
    run : Run
        Whose guide is set up.
    batches : Batches
    settings : mapping
        Of the fit, epochs and seed among them.
    start : mapping of site to Tensor, or None
    validation : like the data, or None

    Returns
    -------
    TrainingFile
    """
    path, processes = run.config.checkpoint, Processes.present("gradients", FitError)
    if path is None:
        return TrainingFile(None, {}, seconds=0.0, processes=processes)
    belongs_to = belonging(run.guide, run.structure, batches, settings=settings, start=start, validation=validation)
    seconds = run.config.checkpoint_seconds
    return TrainingFile(training_path(path), belongs_to, seconds=seconds, processes=processes)


def belonging(
    guide: Any, structure: ModelStructure, batches: Batches, *, settings: Mapping[str, Any], start: Any, validation: Any
) -> dict[str, str]:
    """Return what a training must have in common with the file that it goes on from.

    Parameters
    ----------
    guide : AutoGuide
        Set up, not yet moved to its start.
    structure : ModelStructure
    batches : Batches
    settings : mapping
        Of the fit, epochs and seed among them.
    start : mapping of site to Tensor, or None
    validation : like the data, or None

    Returns
    -------
    dict of str to str
    """
    root = weight_module(guide.model)
    tensors = {} if root is None else {**dict(root.named_parameters()), **dict(root.named_buffers())}
    weights = [tensors[site] for site in sorted(structure.priors) if site in tensors]
    begun = {} if start is None else dict(start)
    return {
        **{name: repr(value) for name, value in settings.items() if name not in NOT_DECIDING},
        "model": repr((structure.likelihood, structure.num_data, repr(root), _sites(structure))),
        "guide": repr((type(guide).__name__, _described(guide))),
        "start": fingerprint([*weights, *(begun[name] for name in sorted(begun))]),
        "data": _looked_at(batches),
        "validation": "none" if validation is None else _looked_at(as_batches(validation, batch_size=ROWS)),
    }


def _sites(structure: ModelStructure) -> list[tuple[Any, ...]]:
    """Return name, shape and prior of each site; of Normal ones that depend on nothing else, mean and sd too."""
    found: list[tuple[Any, ...]] = []
    for name, prior in sorted(structure.priors.items()):
        base: Any = base_distribution(prior)
        fixed = is_normal(prior) and name not in structure.dependent_priors
        found.append(
            (name, tuple(prior.shape()), fingerprint([base.loc, base.scale]) if fixed else type(base).__name__)
        )
        if not fixed and name not in structure.dependent_priors:
            found.append((name, describe_prior(prior)))
    return found


def _described(guide: Any) -> list[tuple[str, Any]]:
    """Return the settings of a guide: its plain attributes, its configurations, and the shapes of its parameters."""
    plain = sorted(
        (name, value)
        for name, value in vars(guide).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    )
    configured = [(name, repr(getattr(guide, name, None))) for name in ("config", "tuning")]
    shapes = [(name, tuple(value.shape)) for name, value in guide.named_parameters()]
    return [*plain, *configured, *shapes]


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(part, PLAIN) for part in value))


def _looked_at(batches: Batches) -> str:
    """Return a digest of some of the data: rows throughout tensors, the first batch of a loader."""
    if isinstance(batches.source, tuple):
        every = max(1, len(batches.source[0]) // ROWS)
        found = fingerprint([part[::every] for part in batches.source])
    else:
        with seeded(0):  # a loader may draw random numbers
            try:
                found = fingerprint(next(numbered_batches(batches)))
            except DataError:  # no order of its own
                found = "drawn at random"
    prepared = () if batches.prepare is None else (repr(batches.prepare),)
    return repr((count_batches(batches), batches.num_data, batches.batch_size, found, *prepared))
