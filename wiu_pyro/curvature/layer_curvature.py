"""`LayerCurvature`: what is kept of one layer's curvature while the data go by, and the precision it ends as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from wiu_pyro.curvature.rules import LayerRule
from wiu_pyro.linalg import Precision

__all__ = ["LayerCurvature"]


class LayerCurvature(ABC):
    """One layer's curvature in one structure, summed over the data seen.

    All that is accumulated is a sum over data, so that sums of several processes add up and a stopped pass can go on.

    Parameters
    ----------
    rule : LayerRule
        How the layer enters the curvature.

    Attributes
    ----------
    structure : str
        ``"kfac"``, ``"ekfac"``, ``"diagonal"`` or ``"full"``.
    num_passes : int
        Passes over the data it takes.
    """

    structure: ClassVar[str]
    num_passes: ClassVar[int] = 1

    def __init__(self, rule: LayerRule) -> None:
        self.rule = rule

    @classmethod
    def covers(cls, rule: LayerRule) -> bool:
        """Return whether a layer with this rule can be had in this structure."""
        return True

    @classmethod
    @abstractmethod
    def num_elements(cls, rule: LayerRule) -> int:
        """Return the numbers kept for a layer, sums and the precision they end as: what it costs in memory."""

    @abstractmethod
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        """Add one batch.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        grads : Tensor, shape (columns, batch, *output_shape)
        """

    def end_pass(self, number: int) -> None:  # noqa: B027 (most structures take one pass)
        """Do what is to be done between passes; called after each but the last, with its number from 0."""

    @abstractmethod
    def sums(self) -> dict[str, torch.Tensor]:
        """Return what the pass under way has accumulated, by name; each is a sum over data."""

    @abstractmethod
    def load_sums(self, sums: dict[str, torch.Tensor]) -> None:
        """Take over sums that another object of this structure and layer returned."""

    def kept(self) -> dict[str, torch.Tensor]:
        """Return what ended passes left behind, by name: no sums, the same in every process after `end_pass`."""
        return {}

    def load_kept(self, kept: dict[str, torch.Tensor]) -> None:  # noqa: B027 (most keep nothing)
        """Take over what another object of this structure and layer kept of its ended passes."""

    def check_prior(self, layer: str, prior_precision: torch.Tensor) -> None:  # noqa: B027 (most take any)
        """Raise PriorError where the prior, of shape (numel,) in the rule's order, cannot enter this structure."""

    @abstractmethod
    def precision(self, prior_precision: torch.Tensor, *, scale: float) -> Precision:
        """Return the posterior precision.

        Parameters
        ----------
        prior_precision : Tensor, shape (numel,)
            In the rule's order.
        scale : float
            Factor on the summed curvature.

        Returns
        -------
        Precision
            Of shape (numel, numel), in the rule's order.
        """
