"""`Accumulated`: whatever grows by sums while the data go by, so that it can be stopped, gone on with, and added up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from typing_extensions import override

__all__ = ["Accumulated", "Totals"]


class Accumulated(ABC):
    """Something summed over the data in one or more passes.

    All that a pass accumulates is in `sums`, each a sum over data: several processes add theirs up, and a checkpoint
    holds them. What ended passes left behind is in `kept`.

    Attributes
    ----------
    num_passes : int
        Passes over the data it takes.
    """

    num_passes: ClassVar[int] = 1

    @abstractmethod
    def take(self, name: str, shown: Any) -> None:
        """Add what a batch shows.

        Parameters
        ----------
        name : str
            The layer, or the name under which this is accumulated.
        shown : CapturedBatch
            Or whatever else the pass shows of a batch.
        """

    def end_pass(self, number: int) -> None:  # noqa: B027 (most take one pass)
        """Do what is to be done between passes; called after each but the last, with its number from 0."""

    @abstractmethod
    def sums(self) -> dict[str, torch.Tensor]:
        """Return what the pass under way has accumulated, by name; each is a sum over data."""

    @abstractmethod
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        """Take over sums that another object of this kind returned."""

    def kept(self) -> dict[str, torch.Tensor]:
        """Return what ended passes left behind, by name: no sums, the same in every process after `end_pass`."""
        return {}

    def load_kept(self, kept: dict[str, torch.Tensor]) -> None:  # noqa: B027 (most keep nothing)
        """Take over what another object of this kind kept of its ended passes."""

    def probes(self) -> list[torch.Tensor]:
        """Return little that is not finite where a sum is not, and zero only where one is; none before any data.

        Of a matrix that is a sum of products v v' the diagonal does.

        Returns
        -------
        list of Tensor
        """
        return [value for value in self.sums().values() if isinstance(value, torch.Tensor)]

    def zero_layers(self, name: str) -> list[str]:
        """Return the layers among those accumulated under this name whose curvature is zero."""
        return [name] if any(not value.any() for value in self.probes()) else []


class Totals(Accumulated):
    """What is summed beside the curvature in the first pass, and the seed of all passes.

    Attributes
    ----------
    seed : int
        Of the sampled labels: each batch has a generator of its own, so that neither a stop nor the number of processes
        changes them, and each pass over the data meets the same.
    sizes : list of int
        Of `Portions`, by which a batch is cut: the sums are the same to the last bit only where the parts are.
    num_seen : int
        Data gone through.
    log_likelihood : float or None
        Of these data at the weights, unscaled, in nats; None where they had no labels.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.sizes: list[int] = []
        self._num_seen = torch.zeros((), dtype=torch.float64)
        self._num_labelled = torch.zeros((), dtype=torch.float64)
        self._log_likelihood = torch.zeros((), dtype=torch.float64)
        self.is_open = True  # shut after the first pass

    def add(self, num_data: int, log_likelihood: torch.Tensor | None = None) -> None:
        """Add one batch; does nothing after the first pass.

        Parameters
        ----------
        num_data : int
        log_likelihood : Tensor, scalar, optional
            Summed over the batch; None without labels.
        """
        if not self.is_open:
            return
        self._num_seen += num_data
        if log_likelihood is not None:
            self._num_labelled += num_data
            self._log_likelihood = self._log_likelihood.to(log_likelihood.device) + log_likelihood.detach().double()

    def generator(self, number: int, device: torch.device) -> torch.Generator:
        """Return the random state of a batch of that number."""
        # seeds far apart, whatever their order: a multiplier of odd golden ratio over 2**63
        return torch.Generator(device).manual_seed((self.seed + number * 0x9E3779B97F4A7C15) % 2**63)

    @override
    def kept(self) -> dict[str, torch.Tensor]:
        return {"seed": torch.tensor(self.seed), "sizes": torch.tensor(self.sizes, dtype=torch.long)}

    @override
    def load_kept(self, kept: dict[str, torch.Tensor]) -> None:
        self.seed = int(kept["seed"])
        self.sizes[:] = kept["sizes"].tolist()

    @override
    def take(self, name: str, shown: Any) -> None:
        """Do nothing: the pass calls `add` once for each batch, where it looks at the likelihood."""

    @override
    def sums(self) -> dict[str, torch.Tensor]:
        return {
            "num_seen": self._num_seen,
            "num_labelled": self._num_labelled,
            "log_likelihood": self._log_likelihood,
        }

    @override
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self._num_seen, self._num_labelled = sums["num_seen"].cpu(), sums["num_labelled"].cpu()
        self._log_likelihood = sums["log_likelihood"]

    @property
    def num_seen(self) -> int:
        """Data gone through."""
        return round(self._num_seen.item())

    @property
    def log_likelihood(self) -> float | None:
        """Of these data at the weights, unscaled, in nats; None where not all of them had labels."""
        return self._log_likelihood.item() if self._num_labelled == self._num_seen else None
