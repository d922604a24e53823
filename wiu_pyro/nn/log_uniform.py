"""The log-uniform distribution on the whole line: improper, so that nothing can be drawn from it."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from wiu_pyro.errors import PriorError

__all__ = ["LogUniform", "is_improper"]


class LogUniform(dist.TorchDistribution):
    """The density ``1 / |w|``, up to a constant that does not exist: ``log |w|`` is uniform on the whole line.

    It says the same whatever the unit of w is. It has no integral, no mean and no sd, and nothing can be drawn from it:
    a model cannot have it, but a posterior can be held against it.

    Parameters
    ----------
    like : Tensor
        Shape, dtype and device of the weights.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)
    support = constraints.real
    improper = True

    def __init__(self, like: torch.Tensor) -> None:
        self.like = like.detach()
        super().__init__(like.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> LogUniform:
        """Return the same over another shape."""
        return LogUniform(self.like.new_empty(()).expand(batch_shape))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return ``−log |w|`` of each weight: infinite at 0, and up to a constant."""
        return -value.abs().log()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Raise: there is nothing to draw from."""
        raise PriorError(
            "A prior that can be drawn from is needed here, but the log-uniform prior is improper. Use the model's own "
            "prior, or draw from the posterior."
        )

    @property
    def mean(self) -> torch.Tensor:
        """Zero, the centre of symmetry; as an integral it does not exist."""
        return self.like.new_zeros(()).expand(self.batch_shape)

    @property
    def variance(self) -> torch.Tensor:
        """NaN: it does not exist."""
        return self.like.new_full((), torch.nan).expand(self.batch_shape)


def is_improper(distribution: Any) -> bool:
    """Return whether a prior has no integral, and so neither sd nor draws; ``to_event`` and ``expand`` aside."""
    while hasattr(distribution, "base_dist") and not isinstance(distribution, dist.TransformedDistribution):
        distribution = distribution.base_dist
    return bool(getattr(distribution, "improper", False))
