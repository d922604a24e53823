"""`LayerCurvature`: what is kept of one layer's curvature while the data go by, and the precision it ends as."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from typing_extensions import override

from wiu_pyro.curvature.accumulated import Accumulated
from wiu_pyro.curvature.rules import LayerRule
from wiu_pyro.linalg import Precision

__all__ = ["LayerCurvature"]


class LayerCurvature(Accumulated):
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
    """

    structure: ClassVar[str]

    def __init__(self, rule: LayerRule) -> None:
        self.rule = rule

    @property
    def columns_alone(self) -> bool:
        """Whether a batch's columns may come one after another at no cost: no work on the inputs is shared by them."""
        return False

    @classmethod
    def covers(cls, rule: LayerRule) -> bool:
        """Return whether a layer with this rule can be had in this structure."""
        return True

    @classmethod
    @abstractmethod
    def num_elements(cls, rule: LayerRule) -> int:
        """Return the numbers kept for a layer, sums and the precision they end as: what it costs in memory."""

    @classmethod
    def scratch_bytes(cls, rule: LayerRule) -> int:
        """Return what it takes for a while, when the sums become a precision."""
        return 0

    @abstractmethod
    def update(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        """Add one batch.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        grads : Tensor, shape (columns, batch, *output_shape)
        """

    def add_inputs(self, layer_input: torch.Tensor) -> None:  # noqa: B027 (most need gradients beside them)
        """Add what of a batch depends on the inputs alone; `update` does it too."""

    def add_columns(self, layer_input: torch.Tensor, grads: torch.Tensor) -> None:
        """Add further columns of data whose inputs have been added."""
        self.update(layer_input, grads)

    @override
    def take(self, name: str, shown: Any) -> None:
        if not shown.grads:
            if name in shown.inputs:
                self.add_inputs(shown.inputs[name])
        elif shown.is_first:
            self.update(shown.inputs[name], shown.grads[name])
        else:
            self.add_columns(shown.inputs[name], shown.grads[name])

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
