"""When a training stops before its end, and which epoch's weights it keeps.

Stopping by held-out data is a choice of weights by their predictions. What is kept is no optimum of what was trained
by, which `Convergence` therefore says.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["EarlyStopping"]

SCORE = "nll"


class EarlyStopping:
    """Follows the held-out negative log-likelihood, and keeps the state where it was least.

    Parameters
    ----------
    patience : int
        Epochs without a new least value after which to stop.
    first_epoch : int
        Epochs that do not count: their objective is another.
    """

    def __init__(self, patience: int, first_epoch: int) -> None:
        self.patience, self.first_epoch = patience, first_epoch
        self.best, self.best_epoch = math.inf, 0
        self.kept: dict[str, Any] | None = None

    def is_better(self, epoch: int, scores: dict[str, float]) -> bool:
        """Note the scores of an epoch, counted from 1, and return whether its state is the one to keep."""
        if epoch <= self.first_epoch or not scores[SCORE] < self.best:
            return False
        self.best, self.best_epoch = scores[SCORE], epoch
        return True

    def is_over(self, epoch: int) -> bool:
        """Return whether the training is to stop after an epoch, counted from 1."""
        return epoch - max(self.best_epoch, self.first_epoch) >= self.patience

    def describe(self, done: int, epochs: int) -> str:
        """Return what came of it, as a sentence.

        Parameters
        ----------
        done, epochs : int
            Epochs run, and asked for.

        Returns
        -------
        str
        """
        end = f"Stopped early, after {done} of {epochs} epochs" if done < epochs else f"After all {epochs} epochs"
        return (
            f"{end}: the weights are those of epoch {self.best_epoch}, where the held-out negative log-likelihood was "
            f"least ({self.best:.4g} nats per datum), which is no optimum of the training loss."
        )

    def state(self) -> dict[str, Any]:
        """Return what a training needs to go on later."""
        return {"best": self.best, "best_epoch": self.best_epoch, "kept": self.kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        self.best, self.best_epoch, self.kept = state["best"], state["best_epoch"], state["kept"]
