"""How the learning rate and the KL's weight go through a training, and from that which epochs convergence is judged by.

The cosine is that of Loshchilov and Hutter (2017), *SGDR*, eq. 5, without restarts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = ("tail", "constant", "cosine")
TAIL = 0.3  # of the epochs, in which the rate of "tail" falls


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a fraction of the full one, and the weight of its KL.

    Attributes
    ----------
    kind : {"tail", "constant", "cosine"}
        Full rate, then a cosine to zero over the last 30 % of the epochs; no change; or a cosine from the warm-up on.
    epochs, steps_per_epoch : int
    rate_warmup, kl_warmup : int
        Epochs over which the learning rate, and the KL's weight, rise linearly to all of it.
    """

    kind: str
    epochs: int
    steps_per_epoch: int
    rate_warmup: int = 0
    kl_warmup: int = 0

    @property
    def total(self) -> int:
        """Number of steps."""
        return self.epochs * self.steps_per_epoch

    @property
    def full_rate_epochs(self) -> int:
        """Number of epochs before the learning rate begins to fall; of a cosine, before it is below a half."""
        falling = {"tail": math.floor(TAIL * self.epochs), "cosine": (self.epochs - self.rate_warmup) // 2}
        return self.epochs - falling.get(self.kind, 0)

    @property
    def warmup_epochs(self) -> int:
        """Number of epochs before the learning rate is full, with all of the KL's weight on."""
        return max(self.rate_warmup, self.kl_warmup)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a fraction of the full one."""
        risen = self.rate_warmup * self.steps_per_epoch
        if step < risen:
            return (step + 1) / risen
        falls = {"tail": self.full_rate_epochs * self.steps_per_epoch, "cosine": risen}.get(self.kind, self.total)
        return 1.0 if step < falls or falls == self.total else _cosine((step - falls) / (self.total - falls))

    def kl_weight(self, step: int) -> float:
        """Return what multiplies the KL at a step, counted from 0, beside the temperature."""
        risen = self.kl_warmup * self.steps_per_epoch
        return 1.0 if step >= risen else (step + 1) / risen

    def travel(self, learning_rate: float) -> float:
        """Return about how far Adam can move a parameter: the learning rate, summed over the steps."""
        size = self.steps_per_epoch
        return learning_rate * sum(self.rate(epoch * size + size // 2) for epoch in range(self.epochs)) * size


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
