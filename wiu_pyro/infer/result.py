"""`Fit`: a trained posterior and how it came about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.infer.convergence import Convergence
from wiu_pyro.infer.track import Track
from wiu_pyro.nn import ModelStructure

__all__ = ["Fit"]


@dataclass(frozen=True, repr=False)
class Fit:
    """A trained posterior and how it came about.

    Attributes
    ----------
    model : callable
        The Pyro model.
    guide : AutoGuide
        Ready to sample; after a Laplace guide was fitted, the Gaussian around its point estimate.
    losses : ndarray, shape (epochs,)
        −ELBO, or −log joint of a point estimate, per epoch, summed over the data, in nats: the mean over the epoch's
        batches, as they were trained on.
    validation : dict of str to ndarray, shape (epochs,)
        ``accuracy`` and ``nll`` of the guide's centre after each epoch, when validation data were given.
    convergence : Convergence
    seed : int
    settings : dict
        All settings, as plain values.
    structure : ModelStructure
    point_estimate : dict of site to Tensor
        The guide's centre.
    unsampled : dict of str to Tensor
        What else the network held at the end of the fit: parameters without a prior, running statistics. The model is
        shared, and another fit of it moves them on; `predict` and the export put these back for as long as they run.
    track : Track or None
        The layers' figures through the training, where `FitConfig.track` asked for them.
    members : tuple of Fit
        Of an ensemble, each network's own fit; empty otherwise. Its losses and validation are their means, and
        `point_estimate` and `unsampled` the first one's: networks have no common centre.
    """

    model: Callable[..., Any]
    guide: AutoGuide
    losses: np.ndarray
    validation: dict[str, np.ndarray]
    convergence: Convergence
    seed: int
    settings: dict[str, Any]
    structure: ModelStructure
    point_estimate: dict[str, torch.Tensor]
    unsampled: dict[str, torch.Tensor] = field(default_factory=dict)
    track: Track | None = None
    members: tuple[Fit, ...] = ()

    def __repr__(self) -> str:
        """Say which posterior it is, how it was trained, and whether it converged."""
        loss = f", last loss {self.losses[-1]:.6g}" if len(self.losses) else ""
        layers = ", ".join(layer.name for layer in self.structure.layers)
        guide = self.settings.get("guide", type(self.guide).__name__)  # of Laplace, the one that made the posterior
        return (
            f"<Fit of {guide} over {layers}: {len(self.losses)} epochs, seed {self.seed}{loss}. "
            f"{self.convergence.detail}>"
        )

    @property
    def networks(self) -> tuple[Fit, ...]:
        """The fit of each network: the members of an ensemble, else this one alone."""
        return self.members or (self,)
