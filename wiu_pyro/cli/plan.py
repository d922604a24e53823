"""Everything `wiu run` can check before it trains: script, data, network, guides, device and folder."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wiu_pyro.cli.console import say
from wiu_pyro.cli.outputs import claim
from wiu_pyro.cli.priors import model_under
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.errors import DataError, DeviceError, ModelError, WiuError
from wiu_pyro.report.folder import RunFolder

__all__ = ["DEFAULT_EPOCHS", "Plan", "load", "prepare"]

DEFAULT_EPOCHS = 20
DEFAULT_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Plan:
    """A run whose every part is loaded and checked.

    Parameters
    ----------
    settings : RunSettings
        With nothing left open: data, epochs and device are what will be used.
    folder : RunFolder
    script : ModelScript
    model : PyroModule
        The network as a Pyro model, at its first weights.
    guides : dict of str to type
        Guide classes by command-line name, in the order they are fitted.
    train, test : ImageData
    """

    settings: RunSettings
    folder: RunFolder
    script: Any
    model: Any
    guides: dict[str, type]
    train: Any
    test: Any

    @property
    def script_sha256(self) -> str:
        """Hash of the model script's text."""
        return hashlib.sha256(self.script.path.read_bytes()).hexdigest()

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the figures: those a resumed run must share."""
        settings = self.settings
        return {
            "model": self.script.title,
            "script_sha256": self.script_sha256,
            "data": self.train.name,
            "num_train": len(self.train),
            "epochs": settings.epochs,
            "vi_epochs": settings.vi_epochs,
            "learning_rate": settings.learning_rate,
            "seed": settings.seed,
            "device": settings.device,
            "num_samples": settings.num_samples,
            "batch_size": settings.batch_size,
            "augment": settings.augment,
            "tune_prior": settings.tune_prior,
            "tune_per": settings.tune_per,
            "prior": settings.prior,
            "ensemble_size": settings.ensemble_size,
        }

    def described(self) -> dict[str, Any]:
        """Return what `run.json` says of model and data."""
        train = self.train
        return {
            "model": {"name": self.script.title, "sha256": self.script_sha256},
            "data": {
                "name": train.name,
                "num_train": len(train),
                "num_test": len(self.test),
                "num_classes": train.num_classes,
                "class_names": list(train.class_names),
                "image_shape": [train.in_channels, *train.image_size],
                "scaling": train.scaling,
            },
        }


def prepare(settings: RunSettings) -> Plan:
    """Load and check all that a run needs; nothing is written but a probe of the folder.

    Parameters
    ----------
    settings : RunSettings

    Returns
    -------
    Plan

    Notes
    -----
    Anything that would make the run fail later is an error here: `DataError`, `ModelError`, `GuideError`,
    `DeviceError`, `OutputError`.
    """
    return load(settings, claiming=True)


def load(settings: RunSettings, *, claiming: bool = False) -> Plan:
    """Load all that a run needs, as `prepare`; the folder is looked at only when it is to be claimed."""
    from wiu_pyro import guides
    from wiu_pyro.nn.scripts import load_model_script

    chosen = {name: guides.by_name(name) for name in settings.guides}
    script = load_model_script(settings.model)
    settings = _completed(settings, script)
    own = re.sub(r"[:=]", "-", script.title)
    folder = RunFolder(settings.out or Path("runs") / f"{own}-{Path(settings.data).stem}")
    if claiming:
        claim(folder, settings)
    train, test = _load_data(settings, normalise=script.normalise)
    model = _build(script, train, seed=settings.seed)
    model = model if settings.prior is None else model_under(model, settings.prior)
    _check_output(model, train)
    _check_guides(chosen, model, train)
    return Plan(settings, folder, script, model, chosen, train, test)


def _check_guides(guides: dict[str, type], model: Any, train: Any) -> None:
    """Let a guide that asks for something the network may not have look at it before anything is trained."""
    import torch

    for guide in guides.values():
        if getattr(guide, "needs_dropout", False):
            with torch.random.fork_rng(devices=[]):
                guide(model).setup(train.first(2).tensors)


def _completed(settings: RunSettings, script: Any) -> RunSettings:
    """Fill in what the user left open."""
    data = settings.data or script.data
    if not data:
        raise DataError(
            f"Data are needed, but neither --data was given nor does {script.name} define DATA. "
            "For example --data mnist (wiu data list), or a folder of images."
        )
    epochs = settings.epochs or script.epochs or DEFAULT_EPOCHS
    vi_epochs = settings.vi_epochs or settings.epochs or script.vi_epochs or epochs
    rate = settings.learning_rate or script.learning_rate or DEFAULT_LEARNING_RATE
    device = _device(settings.device)
    return replace(settings, data=str(data), epochs=epochs, vi_epochs=vi_epochs, learning_rate=rate, device=device)


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"--device must be auto, cpu or cuda, got '{name}'. Use --device auto for what is there.")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise DeviceError("--device cuda needs a CUDA device, but torch finds none. Use --device cpu or auto.")
    return ("cuda" if there else "cpu") if name == "auto" else name


def _load_data(settings: RunSettings, *, normalise: bool) -> tuple[Any, Any]:
    from wiu_pyro import datasets

    say(f"Loading {settings.data} ...")
    train, test = (datasets.load(settings.data, split=split, root=settings.data_root) for split in ("train", "test"))
    train = train if settings.train_images is None else train.first(settings.train_images)
    if normalise:
        moments = train.channel_moments()
        train, test = train.normalised(*moments), test.normalised(*moments)
    return train, test


def _build(script: Any, train: Any, *, seed: int) -> Any:
    """Return the network as a Pyro model; the seed decides its first weights."""
    import pyro

    pyro.set_rng_seed(seed)
    model = script.build(train.num_classes, train.in_channels, train.image_size)
    model.num_data = len(train)
    return model


def _check_output(model: Any, train: Any) -> None:
    """Run two images through the network, and refuse an output that does not fit the classes."""
    import torch
    from pyro import poutine

    images = train.first(2).images
    try:
        with torch.no_grad(), poutine.block():
            output = model(images)
    except WiuError:
        raise
    except Exception as error:
        raise ModelError(
            f"The network must take images of shape {tuple(images.shape)}, but it raised {type(error).__name__}: "
            f"{error}. Build it from the in_channels and image_size that build() is given."
        ) from error
    likelihood = getattr(model, "likelihood", "categorical")
    wanted = 1 if likelihood == "bernoulli" else train.num_classes
    got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    fits = isinstance(output, torch.Tensor) and (
        output.shape == (len(images), wanted) or (wanted == 1 and output.shape == (len(images),))
    )
    if likelihood in ("categorical", "bernoulli") and not fits:
        raise ModelError(
            f"The network's output must have shape ({len(images)}, {wanted}) for {len(images)} images and "
            f"{train.num_classes} classes, got {got}. End the network in num_classes outputs."
        )
