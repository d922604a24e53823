"""Fine-tuning of a pruned network: the removed weights held at zero, the others trained on as a point estimate."""

from __future__ import annotations

from typing import Any

import torch

from wiu_pyro.errors import DataError, FitError
from wiu_pyro.export.sources import Source
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.interventions.candidates import Candidates
from wiu_pyro.interventions.pruned_predictions import masked
from wiu_pyro.nn import as_batches, evaluation_mode, holding, run_at

__all__ = ["fine_tuned"]

TRAINING_BATCH = 128


def fine_tuned(
    source: Source,
    weights: Candidates,
    keep: torch.Tensor,
    *,
    train_data: Any,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Return the weights by site after training those that stay to the mode of the posterior under the model's prior.

    Adam, its rate falling to zero along a cosine. What the network holds beside its sampled weights stays as it was.

    Parameters
    ----------
    source : Source
    weights : Candidates
    keep : Tensor of bool, shape (num,)
        The weights that stay.
    train_data : DataLoader, Dataset or tuple of tensors
    epochs : int
    learning_rate : float
    seed : int
        Of the order of the data.

    Returns
    -------
    dict of site to Tensor

    Raises
    ------
    DataError
        If there are no training data.
    FitError
        If the loss stops being finite.
    """
    if train_data is None:
        raise DataError("Fine-tuning needs training data, got none. Pass train_data=(images, labels).")
    free = {site: value.clone().requires_grad_() for site, value in masked(weights.centre, weights, keep).items()}
    generator = torch.Generator().manual_seed(seed)
    device = next(iter(free.values())).device
    batches = as_batches(train_data, batch_size=TRAINING_BATCH, generator=generator, device=device)
    optimiser = torch.optim.Adam(list(free.values()), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, epochs * len(batches)))
    unsampled = source.fit.unsampled if source.fit is not None else {}
    with holding(source.model, unsampled), evaluation_mode(source.model), seeded(seed):
        for _ in range(epochs):
            for batch in batches:
                trace, _ = run_at(source.model, masked(free, weights, keep), batch, hold_parameters=True)
                loss = -trace.log_prob_sum()
                if not torch.isfinite(loss):
                    raise FitError(
                        f"Fine-tuning needs a finite loss, but it is {loss.item()}. Pass a smaller learning_rate."
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return {site: value.detach() for site, value in masked(free, weights, keep).items()}
