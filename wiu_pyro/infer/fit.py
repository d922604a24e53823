"""`fit`: train a guide on data and return everything that is known of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.errors import GuideError, a_name
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.ensemble import AutoEnsemble
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.point_estimate import AutoPointEstimate
from wiu_pyro.guides.prior_scales import read_tuning
from wiu_pyro.infer.checks import check_data
from wiu_pyro.infer.config import FitConfig, check_whole, read_config, read_device, refuse_recipe
from wiu_pyro.infer.convergence import Convergence, assess
from wiu_pyro.infer.cross_validation import cross_validate_prior
from wiu_pyro.infer.empirical_bayes import refuse_other_guides
from wiu_pyro.infer.ensemble import fit_ensemble
from wiu_pyro.infer.fit_checkpoint import training_file
from wiu_pyro.infer.means import lay_channels_last
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.run import Run
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.infer.start_values import read_start
from wiu_pyro.infer.training import Training
from wiu_pyro.nn import Batches, as_batches, complete_num_data, unsampled

__all__ = ["Fit", "fit"]


def fit(
    model: Callable[..., Any],
    guide: AutoGuide,
    data: Any,
    *,
    epochs: int = 20,
    seed: int = 0,
    validation: Any = None,
    start: Fit | Mapping[str, torch.Tensor] | Sequence[Any] | None = None,
    **options: Any,
) -> Fit:
    """Train a guide; for a Laplace guide, then compute the curvature in one more pass over the data.

    The global random state is left as it was. The same seed gives the same result on the same machine.

    Parameters
    ----------
    model : callable
        `BayesianNetwork` or any Pyro model with one observed site; batches call it as ``model(*batch)``.
    guide : AutoGuide
        One of the toolkit's or Pyro's own, made for `model`.
    data : ImageData, DataLoader, Dataset, or tuple of tensors (x, y)
    epochs : int
        Passes over the data; 0 keeps the weights as they are.
    seed : int
    validation : like `data`, optional
        Looked at after each epoch.
    start : Fit, mapping of site to Tensor, or sequence of them, optional
        Weights to start from, such as another fit's point estimate; parameters without a prior and running statistics
        too, where they are named or a Fit is given. Without it they go on from where the model's last fit left them.
        A Laplace guide with ``epochs=0`` that starts from a Laplace fit takes over its losses and convergence. The
        members of an ensemble have fresh weights, unless they start from those of another, or from a list.
    **options
        The fields of `FitConfig`.

    Returns
    -------
    Fit

    Raises
    ------
    FitError
        If a loss is not finite; names the first site that is not.
    DataError
        If the data are not finite, have labels out of range, or are empty.
    DeviceError
        If the device is not there.
    GuideError
        If an option is unknown, a number is out of range, or `start` is of another kind.
    """
    config = read_config(options)
    check_whole("epochs", epochs)
    if epochs < 0:
        raise GuideError(f"epochs must be 0 or more, but is {epochs}. 0 keeps the weights as they are.")
    if isinstance(guide, AutoEnsemble):
        options |= {"epochs": epochs, "validation": validation}
        return fit_ensemble(fit, model, guide, data, seed=seed, start=start, **options)
    device = read_device(config.device)
    config = replace(config, channels_last=lay_channels_last(config, model, device))
    refuse_recipe(config, guide, epochs=epochs, device=device, validation=validation)
    _adopt(model, guide, data, config)
    # a scope of its own: Pyro's parameters go by name, and a second guide of the same class would take the first's
    with seeded(seed, device), pyro.get_param_store().scope(), pyro.poutine.block():
        generator = torch.Generator().manual_seed(seed)
        batches = as_batches(data, batch_size=config.batch_size, generator=generator, device=device)
        batches = replace(batches, augment=config.augment, channels_last=config.channels_last)
        structure = check_data(model, batches)
        run = Run(model, guide, config=config, structure=structure, device=device)
        begin = read_start(start)
        run.prepare(batches, begin)
        settings = _settings(run, batches, epochs=epochs)
        file = training_file(run, batches, settings={**settings, "seed": seed}, start=begin, validation=validation)
        training = Training(run, batches, epochs=epochs, validation=validation)
        training.least_travel = guide.least_travel() if run.is_new else 0.0
        training.go(file)
        if epochs and isinstance(guide, NetworkGuide):
            guide.after_training(batches.plain())
        posterior = run.finish(data)
        file.remove()
    losses, scores, track = training.losses, training.scores, training.track
    convergence = _assessed(training)
    if _shares_point_estimate(start, guide, epochs):  # then that one's training, and its verdict, are this one's
        losses, scores, convergence, track = start.losses, start.validation, start.convergence, start.track
    found = Fit(
        model=model,
        guide=posterior,
        losses=np.asarray(losses),
        validation={name: np.asarray(values) for name, values in scores.items()},
        convergence=convergence,
        seed=seed,
        settings=settings | {"kept_epochs": training.kept_epochs, "num_processes": training.shares.count},
        structure=posterior.structure if _has_other_prior(posterior) else structure,
        point_estimate=run.centre(),
        unsampled=unsampled(model, structure.priors),
        track=track,
    )
    tuning = getattr(guide, "tuning", None)
    if tuning is not None and tuning.by == "cross-validation":
        return cross_validate_prior(found, validation, tuning=tuning, seed=seed)
    return found


def _settings(run: Run, batches: Batches, *, epochs: int) -> dict[str, Any]:
    """Return all settings of a fit as plain values, defaults as they came out."""
    found = {"device": str(run.device), "batches_per_epoch": len(batches), "learning_rate": run.learning_rate}
    found["batch_statistics"] = run.batch_statistics
    if run.config.augment is not None:
        found["augment"] = repr(run.config.augment)
    return {"guide": type(run.guide).__name__, "epochs": epochs, **asdict(run.config), **found}


def _assessed(training: Training) -> Convergence:
    """Judge a training by its losses, without the part that no weight can change."""
    run = training.run
    offset = run.guide.loss_offset() if isinstance(run.guide, NetworkGuide) else 0.0
    found = assess(
        [loss - offset for loss in training.losses[: training.kept_epochs]],
        full_rate_epochs=training.schedule.full_rate_epochs,
        warmup_epochs=training.schedule.warmup_epochs,
        least=0.0 if run.structure.likelihood in ("categorical", "bernoulli") else run.structure.num_data,
        reach=training.travel,
        travel=training.least_travel,
        objective=run.objective,
    )
    return replace(found, detail=" ".join([found.detail, *training.remarks()]))


def _has_other_prior(posterior: AutoGuide) -> bool:
    """Return whether a posterior stands under another prior than the model's: its structure then has it."""
    record = getattr(posterior, "prior_record", None)
    return (record is not None and record.changed) or getattr(posterior, "has_own_prior", False)


def _adopt(model: Callable[..., Any], guide: AutoGuide, data: Any, config: FitConfig) -> None:
    """Complete model and guide by what the call says: the number of data, the temperature."""
    if not isinstance(guide, AutoGuide):
        raise GuideError(
            f"A Pyro AutoGuide is needed, but this is {a_name(guide)}. Pass one made for the model, for example "
            f"{_example(guide)}(model)."
        )
    complete_num_data(model, as_batches(data))
    if config.temperature is not None:
        if not isinstance(guide, NetworkGuide):
            raise GuideError("A temperature is for the toolkit's guides; Pyro's own have none. Leave it out.")
        guide.temperature = config.temperature
    tuning = read_tuning(config.tune_prior, config.tune_per, config.tune_when)
    if tuning is not None and tuning.by == "empirical-bayes":
        refuse_other_guides(guide)
    elif tuning is not None:
        if not isinstance(guide, LaplaceGuide):
            raise GuideError(
                f"tune_prior is for the Laplace guides, but this is {a_name(guide)}. Use for example "
                'AutoKFACLaplace, give the model another prior, or use tune_prior="empirical-bayes" with AutoMeanField.'
            )
        guide.tuning = tuning


def _example(guide: Any) -> str:
    return guide.__name__ if isinstance(guide, type) and issubclass(guide, AutoGuide) else "AutoMeanField"


def _shares_point_estimate(start: Any, guide: AutoGuide, epochs: int) -> bool:
    """Return whether a Laplace guide, or a point estimate, keeps the point estimate of another such fit."""
    return (
        epochs == 0
        and isinstance(start, Fit)
        and isinstance(start.guide, AutoBlockNormal | AutoPointEstimate)
        and isinstance(guide, LaplaceGuide | AutoPointEstimate)
        and start.guide.temperature == guide.temperature
    )
