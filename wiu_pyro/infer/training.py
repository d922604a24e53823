"""The loop of a training: epochs of steps, and what is done after each of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import nn

from wiu_pyro.errors import FitError, GuideError
from wiu_pyro.infer.held_out import HeldOut
from wiu_pyro.infer.online_tuning import OnlineTuning
from wiu_pyro.infer.schedule import Schedule
from wiu_pyro.infer.track import Track
from wiu_pyro.infer.tracker import Tracker
from wiu_pyro.nn import Batches
from wiu_pyro.nn.checks import check_batch
from wiu_pyro.progress import ProgressBar

if TYPE_CHECKING:
    from wiu_pyro.infer.run import Run

__all__ = ["Training"]

Batch = tuple[torch.Tensor, ...]


class Training:
    """Trains the guide of a run; its attributes are all that changes from epoch to epoch.

    Parameters
    ----------
    run : Run
        Whose guide is set up.
    batches : Batches
    epochs : int
    validation : like the data of `fit`, optional

    Attributes
    ----------
    epoch, step : int
        Done so far.
    losses : list of float
        −ELBO of each epoch.
    scores : dict of str to list of float
        Of the held-out data, by epoch.
    """

    def __init__(self, run: Run, batches: Batches, *, epochs: int, validation: Any = None) -> None:
        self.run, self.batches, self.epochs, self.config = run, batches, epochs, run.config
        self.schedule = Schedule(self.config.schedule, epochs, len(batches))
        self.epoch = self.step = 0
        self.losses: list[float] = []
        self.scores: dict[str, list[float]] = {}
        self.tracker: Tracker | None = None
        self.held_out: HeldOut | None = None
        self.online: OnlineTuning | None = None
        if epochs:
            self._begin(validation)

    def _begin(self, validation: Any) -> None:
        run = self.run
        self.parameters = run.parameters()
        self.optimiser = run.optimiser(self.parameters)
        self.full_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.online = _online_tuning(run.guide, self.batches, self.epochs)
        if self.config.track is not None:
            self.tracker = Tracker(run, len(self.batches), self.schedule.full_rate_epochs)
        if validation is not None:
            self.held_out = HeldOut(validation, run.model, run.structure, device=run.device)

    @property
    def track(self) -> Track | None:
        """What was kept of the layers through the training, where that was asked for."""
        return None if self.tracker is None else self.tracker.result()

    @property
    def travel(self) -> float:
        """About how far the optimiser's steps can have moved a parameter."""
        return self.schedule.travel(self.run.learning_rate)

    def go(self) -> None:
        """Train for what is left of the epochs."""
        label = type(self.run.guide).__name__
        with pyro.validation_enabled(False), ProgressBar(self.schedule.total, label, self.config.progress) as bar:
            while self.epoch < self.epochs:
                self._train_epoch(bar)
                self._end_epoch(bar)

    def _train_epoch(self, bar: ProgressBar) -> None:
        run, total, count = self.run, 0.0, 0
        run.mode(training=True)
        for batch in self.batches:
            value = self._step(batch)
            if run.direct:
                run.guide.after_step(self.step, self.schedule.total)
            if self.tracker is not None:
                self.tracker.stepped(batch, value)
            total, count, self.step = total + value, count + 1, self.step + 1
            bar.advance(loss=value)
        self.losses.append(total / count)
        self.epoch += 1

    def _end_epoch(self, bar: ProgressBar) -> None:
        self.run.mode(training=False)
        for name, score in ({} if self.held_out is None else self.held_out.scores(self.run.centre())).items():
            self.scores.setdefault(name, []).append(score)
            bar.note(**{name: score})
        if self.online is not None and self.epoch < self.epochs:
            self.online.after_epoch(self.epoch)

    def _step(self, batch: Batch) -> float:
        optimiser = self.optimiser
        fraction = self.schedule.rate(self.step)
        for group, full in zip(optimiser.param_groups, self.full_rates, strict=True):
            group["lr"] = full * fraction
        optimiser.zero_grad(set_to_none=True)
        try:
            loss = self.run.loss(batch)
        except (IndexError, RuntimeError):
            check_batch(self.run.structure, batch)  # a DataLoader's later batches are looked at only when they break
            raise
        value = loss.item()
        if not math.isfinite(value):
            raise FitError(
                f"Every loss must be finite, but at step {self.step} it is {value} (site '{self._broken_site(batch)}'). "
                f"Lower the learning rate (now {optimiser.param_groups[0]['lr']:.2g}) or check that batch's data."
            )
        loss.backward()
        if self.config.max_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.max_norm)
        optimiser.step()
        return value

    def _broken_site(self, batch: Batch) -> str:
        with torch.no_grad():
            for name, value in self.run.guide(*batch).items():
                if not torch.isfinite(value).all():
                    return name
        return self.run.structure.observed


def _online_tuning(guide: Any, batches: Batches, epochs: int) -> OnlineTuning | None:
    """Return what changes the prior between epochs, where that was asked for."""
    tuning = getattr(guide, "tuning", None)
    if tuning is None or tuning.when != "online":
        return None
    if epochs <= tuning.burn_in:
        raise GuideError(
            f"A prior tuned online needs more epochs than its burn-in of {tuning.burn_in}, but epochs is {epochs}. "
            'Train longer, or use tune_when="after".'
        )
    return OnlineTuning(guide, batches)
