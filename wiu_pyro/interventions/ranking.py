"""Which weights go: the order in which a score removes them, over the whole network or layer by layer.

The share removed is that of the candidates. Exactly so many go: equal scores are put in an order by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wiu_pyro.errors import CurvatureError
from wiu_pyro.interventions.candidates import Candidates

__all__ = ["RANKINGS", "Removal"]

RANKINGS = ("global", "uniform")


@dataclass(frozen=True)
class Removal:
    """The order in which one criterion removes weights.

    Attributes
    ----------
    weights : Candidates
    order : Tensor of int64, shape (num candidates,)
        Places in the flat vectors, the first to go first.
    """

    weights: Candidates
    order: torch.Tensor

    @classmethod
    def by(cls, weights: Candidates, score: torch.Tensor, generator: torch.Generator) -> Removal:
        """Return the order of a score, lowest first.

        Parameters
        ----------
        weights : Candidates
        score : Tensor, shape (num,)
        generator : Generator
            Orders equal scores.

        Returns
        -------
        Removal

        Raises
        ------
        CurvatureError
            If a candidate's score is not a number.
        """
        places = weights.chosen.nonzero()[:, 0]
        own = score[places]
        if torch.isnan(own).any():
            raise CurvatureError(
                f"A score of each weight is needed to rank them, but {int(torch.isnan(own).sum())} of {len(own)} are "
                "NaN. Check the posterior's moments and prior."
            )
        shuffled = torch.randperm(len(places), generator=generator)
        return cls(weights, places[shuffled[torch.argsort(own[shuffled], stable=True)]])

    def keep(self, sparsity: float, *, ranking: str = "global", layer: str | None = None) -> torch.Tensor:
        """Return which weights stay, bool of shape (num,).

        Parameters
        ----------
        sparsity : float
            Share of the candidates that goes: of all of them, of each layer's (``"uniform"``), or of one layer's.
        ranking : {"global", "uniform"}
        layer : str, optional
            Remove of this one alone.

        Returns
        -------
        Tensor
        """
        groups: Sequence[torch.Tensor] = (self.order,)
        if layer is not None or ranking == "uniform":
            layers = self.weights.layer_names if layer is None else (layer,)
            groups = [self.order[self.weights.of_layer(name)[self.order]] for name in layers]
        stays = torch.ones_like(self.weights.chosen)
        for group in groups:
            stays[group[: round(sparsity * len(group))]] = False
        return stays
