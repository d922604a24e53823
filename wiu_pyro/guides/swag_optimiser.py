"""The optimiser of a SWAG guide: Adam on the way to a point estimate, then a constant rate around it."""

from __future__ import annotations

import math
from typing import Any

import torch

__all__ = ["TwoPhaseOptimiser"]

FULL = 0.7  # share of the way to the point estimate at Adam's full rate


class TwoPhaseOptimiser(torch.optim.Optimizer):
    """Adam whose rate falls to zero by the end of the way, then a second optimiser at a rate of its own.

    Parameters
    ----------
    parameters : list of Tensor
    learning_rate : float
        Of Adam, on the way.
    trajectory : Optimizer or None
        Of the second phase; None goes on with the same Adam.
    trajectory_rate : float
    """

    def __init__(
        self,
        parameters: list[torch.Tensor],
        *,
        learning_rate: float,
        trajectory: torch.optim.Optimizer | None,
        trajectory_rate: float,
    ) -> None:
        self.way = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        super().__init__(parameters, self.way.defaults)
        self.trajectory = trajectory
        self.trajectory_rate = trajectory_rate
        self.fraction = 1.0  # of Adam's rate; 0: the trajectory
        self.param_groups = self.way.param_groups

    def reach(self, step: int, start: int) -> None:
        """Set the phase of the step that comes next: the trajectory has steps from `start` on."""
        full = math.floor(FULL * start)
        if step >= start:
            self.fraction = 0.0
        elif step >= full:
            self.fraction = 0.5 * (1 + math.cos(math.pi * (step - full) / (start - full)))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the parameters by the optimiser of the present phase."""
        if self.fraction > 0:
            self._moved(self.way, [self.fraction * group["lr"] for group in self.param_groups])
        else:
            chosen = self.trajectory or self.way
            self._moved(chosen, [self.trajectory_rate] * len(chosen.param_groups))

    @staticmethod
    def _moved(optimiser: torch.optim.Optimizer, rates: list[float]) -> None:
        asked = [group["lr"] for group in optimiser.param_groups]
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        optimiser.step()
        for group, rate in zip(optimiser.param_groups, asked, strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both phases."""
        second = None if self.trajectory is None else self.trajectory.state_dict()
        return {"way": self.way.state_dict(), "trajectory": second, "fraction": self.fraction}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        self.way.load_state_dict(state_dict["way"])
        self.param_groups = self.way.param_groups
        if self.trajectory is not None:
            self.trajectory.load_state_dict(state_dict["trajectory"])
        self.fraction = state_dict["fraction"]
