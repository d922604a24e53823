"""The mean of the parameters over the last steps of a training.

Polyak and Juditsky (1992), *Acceleration of Stochastic Approximation by Averaging*: at a learning rate that does not
fall, the parameters wander around the optimum, and their mean is nearer to it than any of them.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["AveragedParameters"]


class AveragedParameters:
    """The running mean of parameters, from a step on.

    Parameters
    ----------
    parameters : list of Tensor
    first_step : int
        The first that counts.
    """

    def __init__(self, parameters: list[torch.Tensor], first_step: int) -> None:
        self.parameters, self.first_step, self.count = parameters, first_step, 0
        self.means = [torch.zeros_like(parameter) for parameter in parameters]

    def stepped(self, step: int) -> None:
        """Take the parameters in as they are after a step, counted from 0."""
        if step < self.first_step:
            return
        self.count += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.means, [parameter.detach() for parameter in self.parameters], 1 / self.count)

    def put(self) -> None:
        """Set the parameters to their mean."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.means, strict=True):
                parameter.copy_(mean)

    def state(self) -> dict[str, Any]:
        """Return what a training needs to go on later."""
        return {"count": self.count, "means": self.means}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""
        self.count = state["count"]
        for mean, saved in zip(self.means, state["means"], strict=True):
            mean.copy_(saved)
