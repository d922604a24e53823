"""The settings of a fit, read from its options and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from wiu_pyro.errors import DataError, DeviceError, GuideError, near_matches
from wiu_pyro.infer.schedule import SCHEDULES
from wiu_pyro.infer.track import TrackConfig, read_track

__all__ = ["FitConfig", "read_config", "read_device"]


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
        Full learning rate, then a cosine to zero over the last 30 % of the epochs; no change at all; or a cosine from the
        first step on.
    device : {"cpu", "cuda", "auto"}
    temperature : float or None
        Set on the guide when given.
    max_norm : float or None
        Gradients longer than this are scaled down to it.
    curvature_batch_size : int
        Data per batch of the curvature pass, for tensors and Datasets.
    checkpoint : str or Path or None
        For a Laplace guide: a file that holds the curvature pass under way; see `laplace_approximation`.
    curvature_rounds : int
        For a Laplace guide: at most so many rounds of a curvature averaged over the posterior's outputs, see
        `average_curvature`; 0 leaves it at the point estimate.
    progress : bool
        Show a progress bar on stderr.
    tune_prior, tune_per, tune_when : str or None
        Set on a Laplace guide when given: see `LaplaceGuide`.
    track : {"epoch"}, int, TrackConfig or None
        Keep the layers' figures through the training, after each epoch, after every so many steps, or as a
        `TrackConfig` says; the fit is the same with and without.
    """

    batch_size: int = 128
    learning_rate: float | None = None
    schedule: str = "tail"
    device: str = "cpu"
    temperature: float | None = None
    max_norm: float | None = None
    curvature_batch_size: int = 512
    checkpoint: str | Path | None = None
    curvature_rounds: int = 0
    progress: bool = False
    tune_prior: str | None = None
    tune_per: str | None = None
    tune_when: str | None = None
    track: TrackConfig | str | int | None = None


def read_config(options: dict[str, Any]) -> FitConfig:
    """Return the settings, or raise GuideError or DataError with the option that is wrong."""
    known = [item.name for item in fields(FitConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"fit has no option '{name}'. {near_matches(name, known)}")
    config = FitConfig(**{**options, "track": read_track(options.get("track"))})
    for name in ("batch_size", "curvature_batch_size"):
        if getattr(config, name) < 1:
            raise DataError(f"{name} must be at least 1, but is {getattr(config, name)}. Pass for example 128.")
    if config.curvature_rounds < 0:
        raise GuideError(f"curvature_rounds must be 0 or more, but is {config.curvature_rounds}. 0 does no averaging.")
    for name in ("learning_rate", "temperature", "max_norm"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GuideError(f"{name} must be a positive number, but is {value}. Leave it out for the default.")
    if config.schedule not in SCHEDULES:
        raise GuideError(f"Unknown schedule '{config.schedule}'. {near_matches(config.schedule, SCHEDULES)}")
    return config


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
