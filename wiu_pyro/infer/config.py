"""The settings of a fit, read from its options and checked."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from wiu_pyro.errors import DataError, DeviceError, GuideError, a_name, near_matches
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.infer.schedule import SCHEDULES
from wiu_pyro.infer.track import TrackConfig, read_track

__all__ = ["FitConfig", "check_whole", "read_config", "read_device", "refuse_recipe"]

PRECISIONS = ("float32", "bfloat16")
ARGUMENTS = ("epochs", "seed", "validation", "start")  # of `fit` itself
ELSEWHERE = {"lr": "learning_rate", "num_epochs": "epochs", "num_steps": "epochs"}  # what others call it
WHOLE = ("batch_size", "curvature_batch_size", "rate_warmup", "kl_warmup", "patience", "curvature_rounds")
NUMBERS = ("learning_rate", "temperature", "max_norm", "log_scale_rate", "average", "checkpoint_seconds")


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit.

    Attributes
    ----------
    batch_size : int
        Data per step, for tensors and Datasets; a DataLoader brings its own.
    learning_rate : float or None
        Of Adam; the guide's default (1e-3) when None.
    schedule : {"tail", "constant", "cosine"}
        Full learning rate, then a cosine to zero over the last 30 % of the epochs; no change at all; or a cosine over
        all epochs after the warm-up.
    rate_warmup : int
        Epochs over which the learning rate rises linearly to all of it.
    log_scale_rate : float
        Multiplies the learning rate of the log sds. They have a long way to go where the data say nothing: from the
        initial scale to the prior's.
    kl_warmup : int
        Epochs over which the KL's weight rises linearly to all of it. Their losses are not −ELBO, and convergence is
        judged by the epochs after them.
    average : float
        Over this last part of the steps, a fraction from 0 to 1, the parameters are averaged (Polyak and Juditsky
        1992), and the average is what the fit ends with. Best with ``schedule="constant"``, whose end is a cloud
        around the optimum. Losses are those of the steps; running statistics are computed anew.
    patience : int or None
        Stop when the held-out negative log-likelihood, after all KL weight is on, has not fallen for so many epochs,
        and keep the epoch where it was least.
    precision : {"float32", "bfloat16"}
        ``"bfloat16"`` runs the network under torch's autocast, on a GPU; parameters and KL stay as they are.
    device : {"cpu", "cuda", "auto"}
    temperature : float or None
        Set on the guide when given.
    augment : callable or None
        Changes each batch of inputs at random, in training alone: `wiu_pyro.datasets.FlipAndCrop` for example. The
        curvature, and all that looks at data afterwards, sees them as they are. The likelihood then is that of changed
        inputs, each datum still counted once.
    channels_last : bool or None
        Lay images out with their channels last. Without a value that is done where it saves time: on a GPU with
        ``precision="bfloat16"``, and on the CPU for networks with BatchNorm.
    batch_statistics : bool or None
        Whether BatchNorm normalises each batch of the training by its own mean and variance; otherwise by running ones:
        where a distribution is trained, means over its draws, which follow it through the training and are those of all
        data at its end; where a point is trained, those of `start`, or of all data at the first weights. Without a
        value it does where a point is trained. A distribution over the weights takes the running ones, so that the
        class of an image does not depend on the others of its batch: the likelihood of a Laplace posterior, and of all
        predictions, for one network drawn from a wide posterior has other statistics than the next. It starts with the
        layers before BatchNorm at the scale of their prior, where a point estimate has shrunk them: the same network.
    max_norm : float or None
        Gradients longer than this are scaled down to it.
    curvature_batch_size : int
        Data per batch of the curvature pass, for tensors and Datasets.
    checkpoint : str or Path or None
        A file that holds the fit under way, so that the same call goes on where it was killed, and on the CPU ends the
        same to the last bit: with ``.training`` added, the training after each epoch; as named, a Laplace guide's
        curvature pass (see `laplace_approximation`). Removed when the fit is done.
    checkpoint_seconds : float
        Least time between two writings of a training; 0 writes after each epoch.
    curvature_rounds : int
        For a Laplace guide: at most so many rounds of a curvature averaged over the posterior's outputs, see
        `average_curvature`; 0 leaves it at the point estimate.
    progress : bool
        Show a progress bar on stderr.
    tune_prior : str, PriorTuning or None
        ``"empirical-bayes"`` for a mean-field guide, see `EmpiricalBayes`; the others for a Laplace guide, on which
        they are set: see `LaplaceGuide`.
    tune_per, tune_when : str or None
        As in `PriorTuning`.
    track : {"epoch"}, int, TrackConfig or None
        Keep the layers' figures through the training, after each epoch, after every so many steps, or as a
        `TrackConfig` says; the fit is the same with and without.
    """

    batch_size: int = 128
    learning_rate: float | None = None
    schedule: str = "tail"
    device: str = "cpu"
    temperature: float | None = None
    rate_warmup: int = 0
    log_scale_rate: float = 1.0
    kl_warmup: int = 0
    average: float = 0.0
    patience: int | None = None
    precision: str = "float32"
    augment: Any = None
    channels_last: bool | None = None
    batch_statistics: bool | None = None
    max_norm: float | None = None
    curvature_batch_size: int = 512
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 0.0
    curvature_rounds: int = 0
    progress: bool = False
    tune_prior: Any = None
    tune_per: str | None = None
    tune_when: str | None = None
    track: TrackConfig | str | int | None = None


def read_config(options: dict[str, Any]) -> FitConfig:
    """Return the settings, or raise GuideError or DataError with the option that is wrong."""
    known = [item.name for item in fields(FitConfig)]
    for name in options:
        if name not in known:
            raise GuideError(
                f"fit has no option '{name}'. {near_matches(ELSEWHERE.get(name, name), [*ARGUMENTS, *known])}"
            )
    config = FitConfig(**{**options, "track": read_track(options.get("track"))})
    _check_kinds(config)
    for name in ("batch_size", "curvature_batch_size"):
        if getattr(config, name) < 1:
            raise DataError(f"{name} must be at least 1, but is {getattr(config, name)}. Pass for example 128.")
    if config.curvature_rounds < 0:
        raise GuideError(f"curvature_rounds must be 0 or more, but is {config.curvature_rounds}. 0 does no averaging.")
    if config.augment is not None and not callable(config.augment):
        raise GuideError(
            f"augment must be a callable that changes a batch of inputs, but is {config.augment!r}. Pass for example "
            "wiu_pyro.datasets.FlipAndCrop(padding=4)."
        )
    for name in ("learning_rate", "temperature", "max_norm", "log_scale_rate"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GuideError(f"{name} must be a positive number, but is {value}. Leave it out for the default.")
    for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
        if getattr(config, name) not in known:
            raise GuideError(f"Unknown {name} '{getattr(config, name)}'. {near_matches(getattr(config, name), known)}")
    _check_training(config)
    return config


def check_whole(name: str, value: Any) -> None:
    """Raise GuideError where a number that counts is none."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise GuideError(f"{name} must be a whole number, but is {value!r}. Pass an int, for example 20.")


def _check_kinds(config: FitConfig) -> None:
    for name in WHOLE:
        if name != "patience" or config.patience is not None:
            check_whole(name, getattr(config, name))
    for name in NUMBERS:
        value = getattr(config, name)
        if value is not None and not isinstance(value, Real):
            raise GuideError(f"{name} must be a number, but is {value!r}. Leave it out for the default.")


def _check_training(config: FitConfig) -> None:
    for name in ("rate_warmup", "kl_warmup", "checkpoint_seconds"):
        if getattr(config, name) < 0:
            raise GuideError(f"{name} must be 0 or more, but is {getattr(config, name)}. Leave it out for none.")
    if not 0 <= config.average <= 1:
        raise GuideError(
            f"average must be a fraction of the steps from 0 to 1, but is {config.average}. Pass for example 0.3."
        )
    if config.patience is not None and config.patience < 1:
        raise GuideError(f"patience must be at least 1 epoch, but is {config.patience}. Leave it out for no stopping.")
    if config.patience is not None and config.average:
        raise GuideError(
            "One rule must say which weights a fit ends with, but both patience (those of the best epoch) and average "
            "(those of the last steps) are given. Leave one out."
        )


def refuse_recipe(config: FitConfig, guide: Any, *, epochs: int, device: torch.device, validation: Any) -> None:
    """Raise where the settings of a training do not fit its guide, epochs, device or data.

    Parameters
    ----------
    config : FitConfig
    guide : AutoGuide
    epochs : int
    device : device
    validation : like the data, or None

    Raises
    ------
    GuideError
        If a warm-up leaves no epochs, the KL of one of Pyro's own guides is to be weighted, early stopping has no
        held-out data, or a curvature is to be averaged where there is none.
    DeviceError
        If mixed precision is asked for on the CPU.

    Warns
    -----
    UserWarning
        If less than half of the epochs have all of the KL's weight.
    """
    if config.precision != "float32" and device.type == "cpu":
        raise DeviceError(
            f"Mixed precision is for a GPU, but precision is '{config.precision}' and the device is the CPU, where it "
            'saves no time. Leave precision out, or use device="cuda".'
        )
    if config.curvature_rounds and not isinstance(guide, LaplaceGuide):
        raise GuideError(
            f"curvature_rounds averages the curvature of a Laplace guide, but this is {a_name(guide)}, which has none. "
            "Leave curvature_rounds out, or use for example AutoKFACLaplace."
        )
    if config.kl_warmup and not isinstance(guide, NetworkGuide):
        raise GuideError("A KL warm-up is for the toolkit's guides; Pyro's own have none. Leave kl_warmup out.")
    for name in ("rate_warmup", "kl_warmup"):
        if 0 < epochs <= getattr(config, name):
            raise GuideError(
                f"A warm-up must end before the training does, but {name} is {getattr(config, name)} of {epochs} "
                "epochs. Make it shorter, or train longer."
            )
    if config.patience is not None and validation is None and epochs:
        raise GuideError("Early stopping needs held-out data, but none are given. Pass validation=(x, y).")
    if 0 < epochs < 2 * config.kl_warmup:
        warnings.warn(
            f"At least half of the epochs should have all of the KL's weight, but kl_warmup takes "
            f"{config.kl_warmup} of {epochs}: what comes of it may not have settled at the posterior. Train longer, or "
            "warm up less.",
            stacklevel=3,
        )


def read_device(name: str) -> torch.device:
    """Return the device of that name, or raise DeviceError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"Unknown device '{name}'. {near_matches(name, ['auto', 'cpu', 'cuda'])}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("Device 'cuda' was asked for, but torch sees no GPU. Use device='cpu' or 'auto'.")
    return device
