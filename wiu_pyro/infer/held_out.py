"""Held-out data, looked at after each epoch of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from wiu_pyro.errors import DataError
from wiu_pyro.nn import ModelStructure, as_batches, evaluation_mode, run_at
from wiu_pyro.nn.checks import check_batch

__all__ = ["HeldOut"]

BATCH_SIZE = 1000


class HeldOut:
    """Scores weights on held-out data.

    Parameters
    ----------
    data : DataLoader, Dataset or tuple of tensors (x, y)
    model : callable
        A Pyro model.
    structure : ModelStructure
    device : device

    Raises
    ------
    DataError
        If there are no labels, or the first batch does not fit the model.
    """

    def __init__(
        self, data: Any, model: Callable[..., Any], structure: ModelStructure, *, device: torch.device
    ) -> None:
        self.batches = as_batches(data, batch_size=BATCH_SIZE, device=device)
        self.model, self.structure = model, structure
        first = next(iter(self.batches))
        if len(first) < 2:
            raise DataError("Held-out data need labels, but there are inputs alone. Pass validation=(x, y).")
        check_batch(structure, first)

    def scores(self, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the negative log-likelihood per datum, in nats, and the accuracy of a classifier.

        Parameters
        ----------
        weights : mapping of site to Tensor

        Returns
        -------
        dict of str to float
            ``nll``, and ``accuracy`` for a categorical likelihood.
        """
        categorical = self.structure.likelihood == "categorical"
        nll, correct, count = 0.0, 0, 0
        with evaluation_mode(self.model), torch.no_grad():
            for batch in self.batches:
                trace, _ = run_at(self.model, weights, batch)
                fn = trace.nodes[self.structure.observed]["fn"]
                nll -= fn.log_prob(batch[1]).sum().item()
                count += len(batch[0])
                if categorical:
                    correct += int((fn.logits.argmax(-1) == batch[1]).sum())
        return {"accuracy": correct / count, "nll": nll / count} if categorical else {"nll": nll / count}
