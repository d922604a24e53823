"""Ensembles: members trained one after the other, and separately trained fits joined to one.

Lakshminarayanan et al. (2017): each member starts from weights of its own and sees the data in an order of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.ensemble import AutoEnsemble
from wiu_pyro.infer.checks import check_data
from wiu_pyro.infer.config import read_device
from wiu_pyro.infer.convergence import Convergence
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.seeding import seeded
from wiu_pyro.nn import as_batches, fresh_weights, holding

__all__ = ["STRIDE", "ensemble_of", "fit_ensemble", "fresh_start", "member_seeds"]

STRIDE = 100_000  # between the seeds of two members: ensembles of neighbouring seeds share none
PATHS = ("checkpoint",)  # options that name a file, of which each member needs its own


def member_seeds(seed: int, size: int) -> list[int]:
    """Return the seed of each member; the first has the ensemble's own.

    Parameters
    ----------
    seed, size : int

    Returns
    -------
    list of int

    Examples
    --------
    >>> member_seeds(3, 3)
    [3, 100003, 200003]
    """
    return [seed + STRIDE * number for number in range(size)]


def fit_ensemble(
    fit_one: Callable[..., Fit],
    model: Callable[..., Any],
    guide: AutoEnsemble,
    data: Any,
    *,
    seed: int,
    start: Any,
    **options: Any,
) -> Fit:
    """Train the members of an ensemble one after the other.

    Parameters
    ----------
    fit_one : callable
        `wiu_pyro.fit`.
    model, guide, data, seed
        As it takes them.
    start : Fit or sequence of (Fit or mapping of site to Tensor), optional
        Where the members start: those of another ensemble's fit, or one for each. Fresh weights when None.
    **options
        Passed on for each member.

    Returns
    -------
    Fit

    Raises
    ------
    GuideError
        If there are not as many starts as members, or the prior is to be tuned.
    ModelError
        If a module of the network cannot be given fresh weights.
    """
    if options.get("tune_prior") is not None or getattr(guide.new_member(), "tuning", None) is not None:
        raise GuideError(
            "The members of an ensemble stand under one prior, but tune_prior would give each its own. Tune it on one "
            "network, give the model that prior, and leave tune_prior out."
        )
    starts = _starts(start, guide.size)
    fits = []
    for number, (own, begin) in enumerate(zip(member_seeds(seed, guide.size), starts, strict=True)):
        fresh = fresh_start(model, data, seed=own, device=options.get("device", "cpu"), init=guide.init)
        with fresh if begin is None else nullcontext():
            member = guide.new_member()
            fits.append(fit_one(model, member, data, seed=own, start=begin, **_own_paths(options, number)))
    return _joined(guide, fits)


def _starts(start: Any, size: int) -> Sequence[Any]:
    if start is None:
        return [None] * size
    starts = start.members if isinstance(start, Fit) else start
    if isinstance(starts, Mapping) or not isinstance(starts, Sequence) or len(starts) != size:
        got = f"{len(starts)} starts" if isinstance(starts, Sequence) and len(starts) else f"one {type(start).__name__}"
        raise GuideError(
            f"An ensemble of {size} needs no start, since its members have fresh weights, or one for each, but got "
            f"{got}: members from one place are no ensemble. Leave start out, or pass a list of {size}."
        )
    return starts


@contextmanager
def fresh_start(
    model: Callable[..., Any],
    data: Any,
    *,
    seed: int,
    device: str = "cpu",
    init: Callable[[torch.nn.Module], Any] | None = None,
) -> Iterator[None]:
    """Let a network hold fresh weights for a while, for a fit to start from; afterwards again what it held before.

    Parameters
    ----------
    model : callable
        A Pyro model.
    data : DataLoader, Dataset or tuple of tensors
        One batch shows the model's sites.
    seed : int
        Decides the weights.
    device : str
        Where the fit will be.
    init : callable, optional
        As `wiu_pyro.nn.fresh_weights` takes it.

    Yields
    ------
    None

    Raises
    ------
    ModelError
        If a module cannot be given fresh weights.
    """
    place = read_device(device)
    if isinstance(model, torch.nn.Module):
        model.to(place)
    with seeded(seed, place), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the data: the fit says it of its own
        structure = check_data(model, as_batches(data, device=place))
        fresh = fresh_weights(model, [*structure.priors], init=init)
    with holding(model, fresh):
        yield


def _own_paths(options: Mapping[str, Any], number: int) -> dict[str, Any]:
    named = {name: f"{options[name]}.member{number}" for name in PATHS if options.get(name) is not None}
    return {**options, **named}


def ensemble_of(fits: Sequence[Fit]) -> Fit:
    """Join fits of one network to an ensemble, wherever they were trained.

    Parameters
    ----------
    fits : sequence of Fit
        At least two, of the same model and kind of guide, each from its own seed.

    Returns
    -------
    Fit
        As `wiu_pyro.fit` returns of an `AutoEnsemble`: its ``members`` are `fits`.

    Raises
    ------
    GuideError
        If there are fewer than two, two share a seed, or they differ in layers or guide.

    Examples
    --------
    ``wiu.infer.ensemble_of([wiu.fit(build(), ..., seed=seed) for seed in range(5)])``
    """
    fits = list(fits)
    if len(fits) < 2 or not all(isinstance(one, Fit) for one in fits):
        raise GuideError(f"An ensemble joins two fits or more, but got {len(fits)}. Pass what wiu_pyro.fit returned.")
    kinds = {(type(one.guide), getattr(one.guide, "source_name", "")) for one in fits}
    shapes = {tuple(one.structure.layer_sites) for one in fits}
    if len(kinds) > 1 or len(shapes) > 1 or any(one.members for one in fits):
        names = ", ".join(dict.fromkeys(str(one.settings.get("guide", type(one.guide).__name__)) for one in fits))
        raise GuideError(
            f"The members of an ensemble have the same layers and the same kind of guide, but got {names}. "
            "Join fits that differ by their seed alone."
        )
    seeds = [one.seed for one in fits]
    if len(set(seeds)) < len(seeds):
        raise GuideError(
            f"Each member of an ensemble needs a seed of its own, but they have {seeds}: the same network counted "
            "twice. Fit them with seed=0, 1, ..."
        )
    return _joined(AutoEnsemble(fits[0].model, member=type(fits[0].guide), size=len(fits)), fits)


def _joined(guide: AutoEnsemble, fits: Sequence[Fit]) -> Fit:
    if not all(one.track for one in fits):  # a file has the figures of every network, or of none
        fits = [replace(one, track=None) for one in fits]
    first = fits[0]
    guide.join([one.guide for one in fits], {name: fn.event_dim for name, fn in first.structure.priors.items()})
    return Fit(
        model=first.model,
        guide=guide,
        losses=_mean([one.losses for one in fits]),
        validation={name: _mean([one.validation[name] for one in fits]) for name in first.validation},
        convergence=_convergence([one.convergence for one in fits]),
        seed=first.seed,
        settings={**first.settings, "guide": type(guide).__name__, "size": len(fits)},
        structure=first.structure,
        point_estimate=first.point_estimate,
        unsampled=first.unsampled,
        members=tuple(fits),
    )


def _mean(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over members, epoch by epoch, over those that trained so long."""
    longest = max(len(curve) for curve in curves)
    padded = np.full((len(curves), longest), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    return np.nanmean(padded, axis=0) if longest else np.empty(0)


def _convergence(found: Sequence[Convergence]) -> Convergence:
    """Return the verdict on all members: converged if each has."""
    states = [one.converged for one in found]
    verdict = False if False in states else (None if None in states else True)
    known = [one for one in found if not math.isnan(one.change)]
    worst = max(known, key=lambda one: one.change, default=found[0])
    if verdict is not True:  # the sentence is one of a member that did not make it
        worst = next(one for one in found if one.converged is verdict)
    settled = sum(state is True for state in states)
    detail = f"{settled} of {len(found)} members converged; {'the slowest' if verdict else 'one that did not'}: "
    if verdict is None:
        detail = ""
    return Convergence(
        verdict, max((one.change for one in known), default=math.nan), worst.threshold, detail + worst.detail
    )
