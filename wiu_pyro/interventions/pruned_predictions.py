"""Class probabilities of pruned networks: of the mean network alone, and of the whole posterior.

The pruned *mean* network has the posterior means, and zeros where weights were removed. The pruned *predictive* is that
of the posterior with the removed weights fixed at zero, without variance, the others' joint distribution as it was:
each draw has zeros there. Of a posterior whose predictive is linearised, a draw of the outputs is f(v) + J(v) d at the
pruned mean v, with d a draw of the deviations from the mean that is zero where weights were removed; f and J d come in
one forward pass (forward-mode differentiation). All pruned networks and the unpruned one see the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.errors import DataError
from wiu_pyro.export.sources import Chain, Source
from wiu_pyro.interventions.candidates import Candidates
from wiu_pyro.nn import as_batches, evaluation_mode, holding, run_at

__all__ = ["Network", "gathered", "masked"]

BATCH_SIZE = 1000
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Network:
    """A network that is run at other weights, on one set of data.

    Attributes
    ----------
    source : Source
    data : tuple of Tensor
        Images, and labels in the form the model takes.
    """

    source: Source
    data: tuple[torch.Tensor, ...]

    def probabilities(self, weights: Weights) -> np.ndarray:
        """Return the class probabilities at given weights, (N, C)."""
        with torch.no_grad():
            return self._collect(lambda batch: _probabilities(self._read(weights, batch)))

    def linearised(self, weights: Weights, change: Weights) -> np.ndarray:
        """Return the class probabilities of the network linearised at `weights`, a `change` away from them, (N, C)."""

        def run(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
            with forward_ad.dual_level():
                dual = {
                    site: forward_ad.make_dual(value, change[site]) if site in change else value
                    for site, value in weights.items()
                }
                likelihood = self._read(dual, batch)
                value, slope = forward_ad.unpack_dual(likelihood.output)
                likelihood.output = value if slope is None else value + slope
                return _probabilities(likelihood)

        with torch.no_grad():
            return self._collect(run)

    def predictive(
        self, chain: Chain, weights: Candidates, masks: Sequence[torch.Tensor], *, linearised: bool
    ) -> list[np.ndarray]:
        """Return the posterior's mean probabilities under each mask, each (N, C); a draw at a time."""
        totals: list[Any] = [0.0] * len(masks)
        num = 0
        for draw in chain.draws():
            num += 1
            for place, mask in enumerate(masks):
                if linearised:
                    change = masked({site: draw[site] - weights.centre[site] for site in draw}, weights, mask)
                    found = self.linearised(masked(weights.centre, weights, mask), change)
                else:
                    found = self.probabilities(masked(weights.centre | draw, weights, mask))
                totals[place] = totals[place] + found
        return [total / num for total in totals]

    def _read(self, weights: Weights, batch: tuple[torch.Tensor, ...]) -> OutputLikelihood:
        trace, _ = run_at(self.source.model, weights, batch)
        return read(trace.nodes[self.source.structure.observed]["fn"])

    def _collect(self, run: Callable[[tuple[torch.Tensor, ...]], torch.Tensor]) -> np.ndarray:
        fit, model = self.source.fit, self.source.model
        with holding(model, fit.unsampled if fit is not None else {}), evaluation_mode(model):
            return np.concatenate([run(batch).cpu().numpy() for batch in self._batches()])

    def _batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        point = None if self.source.fit is None else next(iter(self.source.fit.point_estimate.values())).device
        return iter(as_batches(self.data, batch_size=BATCH_SIZE, device=point))


def masked(values: Weights, weights: Candidates, keep: torch.Tensor) -> Weights:
    """Return values by site with zeros where weights are removed."""
    stays = weights.by_site(keep)
    return {site: value * stays[site].to(value) if site in stays else value for site, value in values.items()}


def gathered(data: Any, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels of a classification as tensors: every network sees them in one order.

    Parameters
    ----------
    data : DataLoader, Dataset or tuple of tensors (x, y)
        A loader may shuffle; it is gone over once.
    source : Source

    Returns
    -------
    images : Tensor, shape (N, *input_shape)
    labels : Tensor, shape (N,) or (N, 1)
        In the form the model takes.

    Raises
    ------
    DataError
        If there are no labels, or the likelihood is none of a classification with one label for each datum.
    """
    kind = source.structure.likelihood
    if kind not in ("categorical", "bernoulli") or (kind == "bernoulli" and source.structure.num_outputs != 1):
        raise DataError(
            "Pruning is judged by error, NLL and calibration of a classification with one label for each datum, but "
            f"the likelihood is '{kind}' with {source.structure.num_outputs} outputs. Use pruned_weights, and judge "
            "them by a score of your own."
        )
    batches = list(as_batches(data, batch_size=BATCH_SIZE))
    if len(batches[0]) < 2:
        raise DataError("Labels are needed to judge pruned networks, but the data have none. Pass (x, y).")
    images, labels = (torch.cat([batch[place] for batch in batches]) for place in (0, 1))
    return images, labels


def _probabilities(likelihood: OutputLikelihood) -> torch.Tensor:
    output = likelihood.output.detach()
    if likelihood.kind == "categorical":
        return torch.softmax(output, -1)
    one = torch.sigmoid(output).reshape(len(output), 1)
    return torch.cat([1 - one, one], -1)
