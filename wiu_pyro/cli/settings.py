"""What a run was asked to do: the settings that decide its figures, their hash, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wiu_pyro.cli.priors import parse_prior
from wiu_pyro.errors import DataError, GuideError, near_matches

__all__ = ["DEFAULT_GUIDES", "DEFAULT_MODEL", "RunSettings", "differences", "settings_hash"]

DEFAULT_MODEL = "digits_mlp"
TUNING = ("marginal-likelihood",)
TUNED_PER = ("network", "layer", "site")
LEAST = {
    "epochs": 1,
    "vi_epochs": 1,
    "num_samples": 2,
    "batch_size": 1,
    "seed": 0,
    "track_every": 0,
    "ensemble_size": 2,
    "train_images": 1,
}
DEFAULT_GUIDES = ("mean-field", "laplace-diag", "laplace-kfac")

# How a setting is given on the command line, where it is not --<name>.
_OPTION = {"model": "MODEL", "script_sha256": "the text of the model script"}


@dataclass(frozen=True)
class RunSettings:
    """All that `wiu run` was asked for, as typed or by default.

    Parameters
    ----------
    model : str
        Name of a shipped model, or path of a model script.
    data : str or None
        Name, folder or tar; None takes the script's own ``DATA``.
    guides : tuple of str
        Posteriors by their command-line names, in the order they are fitted.
    out : Path or None
        Folder for the results; None is ``runs/<model>-<data>``.
    epochs : int or None
        Passes over the training data; None takes the script's own ``EPOCHS``, else `DEFAULT_EPOCHS` of the pipeline.
    vi_epochs : int or None
        Passes for variational posteriors, after the point estimate; None takes `epochs` if given, else the script's
        own ``VI_EPOCHS``, else the point estimate's.
    learning_rate : float or None
        Of Adam; None takes the script's own ``LEARNING_RATE``, else 1e-3.
    seed : int
        Decides the network's first weights, the batches and the draws.
    device : str
        "auto", "cpu" or "cuda".
    num_samples : int
        Draws from each posterior in the export and in its predictive.
    data_root : Path or None
        Where data by name lie or are put; None takes ``WIU_DATA``.
    train_images : int or None
        Train on the first so many images alone; None takes all.
    batch_size : int
        Images per training step.
    augment : bool
        Change the training images at random, where the script's ``AUGMENT`` says how.
    tune_prior : str or None
        ``"marginal-likelihood"`` tunes the prior of the Laplace posteriors after the fit.
    tune_per : str or None
        What shares a scale: ``"network"`` (default), ``"layer"`` or ``"site"``.
    prior : str or None
        ``"fan-in"``, ``"normal:SCALE"`` or ``"laplace:SCALE"`` for every weight that has a prior; None keeps the
        script's own.
    track_every : int or None
        Epochs from one record of the layers' figures to the next; 0 keeps none. None: up to about 200 times of a
        posterior that factorises, about 30 times of the point estimate.
    ensemble_size : int
        Members of each ensemble.
    prune : bool
        Also prune each posterior and write what came of it.
    report : bool
        Write the page once all is fitted; ``wiu report`` writes it later.
    resume, overwrite : bool
        What to do when `out` already holds a run; at most one of them.
    """

    model: str = DEFAULT_MODEL
    data: str | None = None
    guides: tuple[str, ...] = DEFAULT_GUIDES
    out: Path | None = None
    epochs: int | None = None
    vi_epochs: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    device: str = "auto"
    num_samples: int = 200
    data_root: Path | None = None
    train_images: int | None = None
    batch_size: int = 128
    augment: bool = True
    tune_prior: str | None = None
    tune_per: str | None = None
    track_every: int | None = None
    prior: str | None = None
    ensemble_size: int = 5
    prune: bool = False
    report: bool = True
    resume: bool = False
    overwrite: bool = False

    def check(self) -> None:
        """Refuse what can be seen to be wrong before anything is loaded.

        Raises
        ------
        DataError
            For a count or learning rate that is not positive, or --resume together with --overwrite.
        GuideError
            If there is no guide, one is named twice, or the prior cannot be tuned so.
        """
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                option = name.replace("_", "-")
                raise DataError(f"--{option} must be at least {least}, got {value}. Leave it out for the default.")
        rate = self.learning_rate
        if rate is not None and not 0 < rate < math.inf:
            raise DataError(f"--learning-rate must be a positive number, got {rate:g}. Leave it out for the default.")
        self._check_tuning()
        if self.prior is not None:
            parse_prior(self.prior)
        if self.resume and self.overwrite:
            raise DataError("--resume and --overwrite exclude each other, both were given. Keep one of them.")
        if not self.guides:
            raise GuideError(f"At least one guide is needed, none was given. For example --guides {DEFAULT_GUIDES[0]}.")
        twice = sorted({name for name in self.guides if self.guides.count(name) > 1})
        if twice:
            raise GuideError(f"Each guide is fitted once, but named twice: {', '.join(twice)}. Name it once.")

    def _check_tuning(self) -> None:
        if self.tune_prior not in (None, *TUNING):
            raise GuideError(
                f"--tune-prior has no choice '{self.tune_prior}'. {near_matches(self.tune_prior, TUNING)} "
                "Cross-validation needs data held out beside the test data: wiu_pyro.fit(..., validation=...)."
            )
        if self.tune_per not in (None, *TUNED_PER):
            raise GuideError(f"--tune-per has no choice '{self.tune_per}'. {near_matches(self.tune_per, TUNED_PER)}")
        if self.tune_per is not None and self.tune_prior is None:
            raise GuideError(
                "--tune-per says how a prior is tuned, but --tune-prior is not given. Add --tune-prior "
                "marginal-likelihood."
            )

    def command(self) -> str:
        """Return the command line that asks for the same again."""
        defaults = RunSettings()
        words = ["wiu", "run", self.model]
        for name, value in asdict(self).items():
            if name in ("model", "resume", "overwrite") or value == getattr(defaults, name):
                continue
            option = name.replace("_", "-")
            text = ",".join(value) if name == "guides" else str(value)
            switches = {True: [f"--{option}"], False: [f"--no-{option}"]}
            words += switches[value] if isinstance(value, bool) else [f"--{option}", text]
        return shlex.join(words)


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of settings written as JSON with sorted keys; equal settings have equal hashes."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words which settings of two runs differ.

    Returns
    -------
    list of str
        One entry per setting; empty where all are equal.

    Examples
    --------
    >>> differences({"seed": 0, "epochs": 5}, {"seed": 1, "epochs": 5})
    ['--seed was 0, now 1']
    """
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        option = _OPTION.get(name, f"--{name.replace('_', '-')}")
        changed = f"{option} has changed" if name == "script_sha256" else f"{option} was {old}, now {new}"
        lines.append(changed)
    return lines
