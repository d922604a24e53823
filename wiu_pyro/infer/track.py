"""What a fit keeps of its layers while it trains: when it is asked for, and the record that comes of it.

A posterior with a closed form is read as it stands. A point estimate has no posterior until its curvature is known, so
a cheap one is put around it at each record: the diagonal of the curvature over a few of the training data, the same
ones each time, scaled to all of them. Its sds are about the conditional ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wiu_pyro.curvature import CURVATURE_KINDS
from wiu_pyro.errors import GuideError, near_matches

__all__ = ["FIGURES", "Track", "TrackConfig", "read_track"]

UNITS = ("epochs", "steps")
FIGURES = {
    "kl": "KL of the layer's marginal posterior from its prior, nats",
    "kl_per_weight": "kl / number of weights that have a posterior, nats",
    "contraction": "mean over the weights of 1 - sd^2 / prior sd^2",
    "conditional_contraction": "mean over the weights of 1 - conditional sd^2 / prior sd^2",
    "sd_q05": "5 % quantile over the weights of the posterior sd, units of the weight",
    "sd_q50": "median over the weights of the posterior sd, units of the weight",
    "sd_q95": "95 % quantile over the weights of the posterior sd, units of the weight",
    "sd_to_prior": "median over the weights of sd / prior sd",
    "snr_q05": "5 % quantile over the weights of |mean| / sd",
    "snr_q50": "median over the weights of |mean| / sd",
    "snr_q95": "95 % quantile over the weights of |mean| / sd",
    "mean_abs": "mean of |posterior mean|, units of the weight",
    "mean_to_prior": "rms over the weights of (mean - prior mean) / prior sd",
    "mean_change": "rms over the weights of the mean's change since the record before / prior sd",
}


@dataclass(frozen=True)
class TrackConfig:
    """How often layer figures are kept, and the curvature they rest on where the guide is a point estimate.

    Attributes
    ----------
    every : int
        Epochs or steps from one record to the next.
    unit : {"epochs", "steps"}
    num_data : int
        Data of the curvature, for a Laplace guide: the first that training goes through, the same in each record. Until
        so many have come by, a record has fewer, and says so.
    curvature : {"ggn", "fisher_mc", "fisher_empirical"}
        Whose diagonal is taken. The exact GGN has no sampling noise from record to record; of a trained classifier the
        sampled Fisher with one label a datum has much.

    Raises
    ------
    GuideError
        If a word is unknown or a number is not positive.
    """

    every: int = 1
    unit: str = "epochs"
    num_data: int = 1_000
    curvature: str = "ggn"

    def __post_init__(self) -> None:
        for name, known in (("unit", UNITS), ("curvature", CURVATURE_KINDS)):
            if getattr(self, name) not in known:
                raise GuideError(
                    f"TrackConfig has no {name} '{getattr(self, name)}'. {near_matches(getattr(self, name), known)}"
                )
        for name in ("every", "num_data"):
            if getattr(self, name) < 1:
                raise GuideError(f"{name} of TrackConfig must be at least 1, but is {getattr(self, name)}. Pass 1.")


def read_track(asked: TrackConfig | Mapping[str, Any] | str | int | None) -> TrackConfig | None:
    """Return the settings of ``track=``.

    Parameters
    ----------
    asked : TrackConfig, {"epoch"}, int, mapping or None
        A number is one of steps; a mapping has the fields of `TrackConfig`.

    Returns
    -------
    TrackConfig or None
        None: nothing is kept.

    Raises
    ------
    GuideError
        If it is none of these.

    Examples
    --------
    >>> read_track(50)
    TrackConfig(every=50, unit='steps', num_data=1000, curvature='ggn')
    """
    if asked is None or isinstance(asked, TrackConfig):
        return asked
    if asked == "epoch":
        return TrackConfig()
    if isinstance(asked, int) and not isinstance(asked, bool):
        return TrackConfig(every=asked, unit="steps")
    if isinstance(asked, Mapping) and set(asked) <= set(TrackConfig.__annotations__):
        return TrackConfig(**asked)
    raise GuideError(
        f'track must be "epoch", a number of steps or a TrackConfig, but is {asked!r}. Use track="epoch" for a record '
        "after each epoch, or leave it out."
    )


@dataclass(frozen=True)
class Track:
    """Layer figures through a training, as plain arrays.

    Attributes
    ----------
    layers : tuple of str
    figures : dict of str to ndarray, shape (records, layers)
        By the names of the layer table, with ``mean_to_prior`` and ``mean_change``; NaN for a layer at its point
        estimate. `FIGURES` says what each is.
    step : ndarray of int, shape (records,)
        Optimiser steps done.
    epoch : ndarray, shape (records,)
        Epochs done: 1 after the first.
    loss : ndarray, shape (records,)
        −ELBO summed over the data, nats: mean over the steps since the record before.
    num_data : ndarray of int, shape (records,)
        Data of the curvature; 0 where the posterior has a closed form of its own.
    full_rate_epochs : float
        Epochs at the full learning rate, before it falls.
    every : int
    unit : {"epochs", "steps"}
    structure : str
        ``"diagonal"`` around a point estimate, else the guide's own.
    curvature : str
        ``"none"`` where the posterior has a closed form of its own.
    factorised : bool
        Whether all weights are independent, so that the sd is about the conditional one.
    """

    layers: tuple[str, ...]
    figures: dict[str, np.ndarray]
    step: np.ndarray
    epoch: np.ndarray
    loss: np.ndarray
    num_data: np.ndarray
    full_rate_epochs: float
    every: int
    unit: str
    structure: str
    curvature: str
    factorised: bool
