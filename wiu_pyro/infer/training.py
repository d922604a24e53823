"""The loop of a training: epochs of steps, what is done after each of both, and all of its state for a checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import nn

from wiu_pyro.errors import FitError
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.running_statistics import recompute_running_statistics
from wiu_pyro.infer.averaged_parameters import AveragedParameters
from wiu_pyro.infer.between_epochs import between_epochs
from wiu_pyro.infer.early_stopping import EarlyStopping
from wiu_pyro.infer.empirical_bayes import EmpiricalBayes
from wiu_pyro.infer.fit_checkpoint import TrainingFile
from wiu_pyro.infer.held_out import HeldOut
from wiu_pyro.infer.online_tuning import OnlineTuning
from wiu_pyro.infer.random_states import random_states, restore_random_states
from wiu_pyro.infer.schedule import Schedule
from wiu_pyro.infer.shares import Shares
from wiu_pyro.infer.track import Track
from wiu_pyro.infer.tracker import Tracker
from wiu_pyro.nn import Batches, put_unsampled, unsampled
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
    least_travel : float
        How far a parameter must be able to move, or the result is where it started.
    losses : list of float
        Of each epoch: what the guide is trained by (`Run.objective`), in nats, summed over the data.
    scores : dict of str to list of float
        Of the held-out data, by epoch.
    """

    def __init__(self, run: Run, batches: Batches, *, epochs: int, validation: Any = None) -> None:
        config = run.config
        self.run, self.batches, self.epochs, self.config = run, batches, epochs, config
        self.schedule = Schedule(config.schedule, epochs, len(batches), config.rate_warmup, config.kl_warmup)
        self.shares = Shares(run)
        self.epoch = self.step = 0
        self.least_travel = 0.0
        self.losses: list[float] = []
        self.scores: dict[str, list[float]] = {}
        self.tracker: Tracker | None = None
        self.held_out: HeldOut | None = None
        self.between_epochs: OnlineTuning | EmpiricalBayes | None = None
        self.averaged: AveragedParameters | None = None
        self.stopping: EarlyStopping | None = None
        if epochs:
            self._begin(validation)

    def _begin(self, validation: Any) -> None:
        run, config, schedule = self.run, self.config, self.schedule
        run.start_statistics(self.batches)
        run.show_data(self.batches)
        self.parameters = run.parameters()
        self.optimiser = run.optimiser(self.parameters)
        self.full_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.between_epochs = between_epochs(run, self.batches, self.epochs)
        if config.track is not None:
            self.tracker = Tracker(run, len(self.batches), schedule.full_rate_epochs)
        if validation is not None:
            self.held_out = HeldOut(validation, run.model, run.structure, device=run.device)
        if config.patience is not None:
            self.stopping = EarlyStopping(config.patience, config.kl_warmup)
        if config.average:
            first = schedule.total - max(1, round(config.average * schedule.total))
            self.averaged = AveragedParameters(self.parameters, first)

    @property
    def track(self) -> Track | None:
        """What was kept of the layers through the training, where that was asked for."""
        return None if self.tracker is None else self.tracker.result()

    @property
    def travel(self) -> float:
        """About how far the optimiser's steps can have moved a log sd."""
        rate, guide = self.run.learning_rate * self.config.log_scale_rate, self.run.guide
        return self.schedule.travel(guide.travel_per_step(rate) if self.run.direct else rate)

    @property
    def kept_epochs(self) -> int:
        """Number of epochs after which the weights are those the fit ends with."""
        return self.epoch if self.stopping is None or not self.stopping.best_epoch else self.stopping.best_epoch

    def remarks(self) -> list[str]:
        """Return what else must be known of the losses that convergence is judged by, as sentences."""
        found = []
        if self.stopping is not None and self.stopping.best_epoch:
            found.append(self.stopping.describe(self.epoch, self.epochs))
        if 2 * self.config.kl_warmup > self.kept_epochs:
            found.append(f"Only {self.kept_epochs - self.config.kl_warmup} epochs had all of the KL's weight.")
        return found

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        stopped = self.stopping is not None and self.stopping.is_over(self.epoch)
        return self.epoch >= self.epochs or stopped

    def go(self, file: TrainingFile | None = None) -> None:
        """Train for what is left of the epochs.

        Parameters
        ----------
        file : TrainingFile, optional
            Goes on from what it holds, and writes to it.
        """
        if not self.epochs:
            return
        self.shares.begin(self.parameters, self.batches)
        state = None if file is None else file.read(self.run.device)
        if state is not None:
            self.load_state(state)
        shown = self.config.progress and self.shares.processes.rank == 0
        label = type(self.run.guide).__name__
        with pyro.validation_enabled(False), ProgressBar(self.schedule.total, label, shown) as bar:
            bar.advance(self.step)
            while not self.is_over:
                self._train_epoch(bar)
                self._end_epoch(bar)
                if file is not None:
                    file.write(self.state, always=self.is_over)
        self._end()

    def _train_epoch(self, bar: ProgressBar) -> None:
        run, total, count = self.run, 0.0, 0
        run.mode(training=True)
        for batch in self.shares.batches(self.batches):
            run.follow_statistics(batch, self.step)
            value = self._step(batch)
            if run.direct:
                run.guide.after_step(self.step, self.schedule.total)
            if self.averaged is not None:
                self.averaged.stepped(self.step)
            if self.tracker is not None:
                self.tracker.stepped(batch, value)
            total, count, self.step = total + value, count + 1, self.step + 1
            bar.advance(loss=value)
        self.losses.append(total / count)
        self.epoch += 1

    def _end_epoch(self, bar: ProgressBar) -> None:
        self.run.mode(training=False)
        self.shares.align()
        scores = {} if self.held_out is None else self.held_out.scores(self.run.centre())
        found = self.shares.processes.gather(scores)[0]  # one verdict on when to stop
        for name, score in found.items():
            self.scores.setdefault(name, []).append(score)
            bar.note(**{name: score})
        if self.stopping is not None and self.stopping.is_better(self.epoch, found):
            self.stopping.kept = _copied(self._posterior())
        if self.between_epochs is not None and self.epoch < self.epochs:
            self.between_epochs.after_epoch(self.epoch)

    def _end(self) -> None:
        """Let the guide hold what the fit ends with."""
        if self.averaged is not None:
            self.averaged.put()
            if self.run.batch_statistics:
                batches = self.shares.batches(self.batches.plain())
                recompute_running_statistics(self.run.model, self.run.centre(), batches)
        if self.stopping is not None and self.stopping.kept is not None:
            self._put_posterior(self.stopping.kept)
        if self.run.draws_statistics:
            self.run.settle_statistics(self.batches)
        if self.between_epochs is not None:
            self.between_epochs.end()

    def _step(self, batch: Batch) -> float:
        optimiser, schedule = self.optimiser, self.schedule
        fraction = schedule.rate(self.step)
        for group, full in zip(optimiser.param_groups, self.full_rates, strict=True):
            group["lr"] = full * fraction
        optimiser.zero_grad(set_to_none=True)
        part, share = self.shares.of(batch)
        try:
            loss = self.run.loss(part, kl_weight=schedule.kl_weight(self.step))
            loss = loss if share == 1.0 else loss * share
            loss.backward()
        except Exception as error:
            self.shares.tell_failure(self.parameters)
            if isinstance(error, IndexError | RuntimeError):
                check_batch(
                    self.run.structure, batch
                )  # a DataLoader's later batches are looked at only when they break
            raise
        value = self.shares.add_up(self.parameters, loss.item())
        if not math.isfinite(value):
            raise FitError(
                f"Every loss must be finite, but at step {self.step} it is {value} (site '{self._broken_site(batch)}')."
                f" Lower the learning rate (now {optimiser.param_groups[0]['lr']:.2g}) or check that batch's data."
            )
        if self.config.max_norm is not None:
            own = {id(parameter) for parameter in getattr(self.run.guide, "never_clipped", ())}
            clipped = [parameter for parameter in self.parameters if id(parameter) not in own]
            nn.utils.clip_grad_norm_(clipped, self.config.max_norm)
        optimiser.step()
        return value

    def _broken_site(self, batch: Batch) -> str:
        with torch.no_grad():
            for name, value in self.run.guide(*batch).items():
                if not torch.isfinite(value).all():
                    return name
        return self.run.structure.observed

    def _posterior(self) -> dict[str, Any]:
        """Return all that a training changes of the guide and the network."""
        guide = self.run.guide
        return {
            "guide": guide.state_dict(),
            "prior_scales": dict(getattr(guide, "prior_scales", {})),
            "network": unsampled(self.run.model, self.run.structure.priors),
        }

    def _put_posterior(self, state: dict[str, Any]) -> None:
        guide = self.run.guide
        guide.load_state_dict(state["guide"])
        if isinstance(guide, NetworkGuide):
            guide.set_prior_scales(state["prior_scales"])
        put_unsampled(self.run.model, state["network"])

    def _parts(self) -> dict[str, Any]:
        parts = {
            "tracker": self.tracker,
            "between_epochs": self.between_epochs,
            "averaged": self.averaged,
            "stopping": self.stopping,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state(self) -> dict[str, Any]:
        """Return the whole state after an epoch, as tensors and plain values; the same in all processes."""
        own = random_states(self.batches, self.run.device) | {"common": self.shares.common}
        return {
            "epoch": self.epoch,
            "step": self.step,
            "least_travel": self.least_travel,
            "losses": self.losses,
            "scores": self.scores,
            "posterior": self._posterior(),
            "optimiser": self.optimiser.state_dict(),
            "random": self.shares.processes.gather(own),
            **{name: part.state() for name, part in self._parts().items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        self.epoch, self.step, self.least_travel = state["epoch"], state["step"], state["least_travel"]
        self.losses, self.scores = state["losses"], state["scores"]
        self._put_posterior(state["posterior"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, part in self._parts().items():
            part.load_state(state[name])
        own = state["random"][self.shares.processes.rank]
        restore_random_states(own, self.batches, self.run.device)
        self.shares.common = None if own["common"] is None else own["common"].cpu()


def _copied(state: Any) -> Any:
    """Return a nested state with copies of its tensors."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    return {name: _copied(value) for name, value in state.items()} if isinstance(state, dict) else state
