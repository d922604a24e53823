"""Networks that are Bayesian in some layers from the start: the same kind of posterior, fitted to those layers alone.

A Laplace posterior of some layers around the same point estimate has the curvature of the whole one with the other
layers' rows and columns left out, so that no pass over the data is needed; its prior is tuned again where the whole
one's was. A mean-field posterior is trained: `AutoMeanField` with the other layers at a point estimate, which are
trained along. Any other posterior is refitted by a guide that the user makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pyro.infer import autoguide
from pyro.infer.autoguide import AutoGuide

from wiu_pyro.guides import AutoBlockNormal, AutoMeanField
from wiu_pyro.infer import Fit, FitConfig, fit
from wiu_pyro.interventions.cut_blocks import conditional_guide

__all__ = ["Refit", "refitted", "why_not"]

NOT_AGAIN = ("checkpoint", "progress", "track", "patience")  # settings of a fit that its refits do not share
MEAN_FIELD = (AutoMeanField, autoguide.AutoNormal, autoguide.AutoDiagonalNormal)
MakeGuide = Callable[[Any, tuple[str, ...]], AutoGuide]


@dataclass(frozen=True)
class Refit:
    """How posteriors of some layers are fitted.

    Attributes
    ----------
    data : DataLoader, Dataset, tuple of tensors, or None
        Training data; None where nothing is trained.
    epochs : int or None
        As many as the whole posterior had, when None.
    make : callable, optional
        ``make(model, layers)`` returns the guide to train, for a posterior that is neither Laplace nor mean field.
    """

    data: Any = None
    epochs: int | None = None
    make: MakeGuide | None = None


def why_not(whole: Fit, how: Refit) -> str:
    """Return why a posterior cannot be refitted; empty where it can.

    Parameters
    ----------
    whole : Fit
    how : Refit

    Returns
    -------
    str
    """
    if how.make is None and isinstance(whole.guide, AutoBlockNormal):
        return ""
    if how.make is None and not isinstance(whole.guide, MEAN_FIELD):
        return (
            f"a {type(whole.guide).__name__} has no form with some layers at a point estimate: "
            "give refit=lambda model, layers: ... to make one"
        )
    return "refits are trained, and no train_data were given" if how.data is None else ""


def refitted(whole: Fit, layers: Sequence[str], how: Refit) -> Fit:
    """Return the fit of a posterior of some layers alone.

    What is trained starts at the whole posterior's centre, with the settings, the seed and the epochs that one had.

    Parameters
    ----------
    whole : Fit
        The posterior of all layers.
    layers : sequence of str
    how : Refit
        Of which `why_not` says nothing.

    Returns
    -------
    Fit
    """
    layers = tuple(layers)
    if how.make is None and isinstance(whole.guide, AutoBlockNormal):
        return replace(whole, guide=conditional_guide(whole.guide, layers, tune=True))
    guide = how.make(whole.model, layers) if how.make is not None else _mean_field(whole, layers)
    known = [item.name for item in fields(FitConfig) if item.name not in NOT_AGAIN]
    options = {name: whole.settings[name] for name in known if name in whole.settings}
    epochs = whole.settings["epochs"] if how.epochs is None else how.epochs
    start: Any = {**whole.point_estimate, **whole.unsampled}
    return fit(whole.model, guide, how.data, epochs=epochs, seed=whole.seed, start=start, **options)


def _mean_field(whole: Fit, layers: tuple[str, ...]) -> AutoMeanField:
    point = [layer.name for layer in whole.structure.layers if layer.name not in layers]
    own = whole.guide if isinstance(whole.guide, AutoMeanField) else None
    return AutoMeanField(
        whole.model,
        estimator=own.estimator if own is not None else "local",
        init_scale=own.init_scale if own is not None else None,
        temperature=own.temperature if own is not None else 1.0,
        point=point,
    )
