"""The settings of `stochastic_layers`, read from its options and checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from wiu_pyro.errors import DataError, GuideError, near_matches
from wiu_pyro.interventions.layer_sets import FAMILIES, layer_sets
from wiu_pyro.interventions.refit import MakeGuide
from wiu_pyro.interventions.set_scores import KINDS

__all__ = ["StochasticLayersConfig", "read_stochastic_config"]

PREDICTIVES = ("linearised", "sampled")


@dataclass(frozen=True)
class StochasticLayersConfig:
    """Settings of `stochastic_layers`.

    Attributes
    ----------
    families : tuple of {"only", "last", "first", "all_but"}
        Which sets of layers are compared, beside none and all.
    kinds : tuple of {"restricted", "refitted"}
        Whether the other layers are put at the mean, or the posterior is fitted to the set alone.
    predictive : {"linearised", "sampled"} or None
        The posterior's own when None.
    num_samples : int
        Draws behind every set's predictive, at least 2.
    refit : callable or None
        ``refit(model, layers)`` returns the guide to train, for posteriors that are neither Laplace nor mean field.
    refit_epochs : int or None
        Passes over the training data of refits that are trained; as many as the posterior had when None.
    effect_draws : int
        Pairs of draws behind the effects of the layers, at least 2; 0 leaves the effects out.
    effect_images : int
        Images that the effects are of, the first of the data.
    most_exact : int
        Layers up to which Shapley effects go through all sets; of more, through random orders.
    bins : int
        Of the calibration error.
    num_bootstrap : int
        Replicates behind intervals over images.
    level : float
        Of intervals, between 0 and 1.
    """

    families: tuple[str, ...] = FAMILIES
    kinds: tuple[str, ...] = KINDS
    predictive: str | None = None
    num_samples: int = 200
    refit: MakeGuide | None = None
    refit_epochs: int | None = None
    effect_draws: int = 50
    effect_images: int = 500
    most_exact: int = 8
    bins: int = 15
    num_bootstrap: int = 1_000
    level: float = 0.95


def read_stochastic_config(options: dict[str, Any]) -> StochasticLayersConfig:
    """Return the settings, or raise GuideError or DataError with the option that is wrong."""
    known = [item.name for item in fields(StochasticLayersConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"stochastic_layers has no option '{name}'. {near_matches(name, known)}")
    config = StochasticLayersConfig(**options)
    layer_sets(("a", "b"), config.families)
    for kind in config.kinds:
        if kind not in KINDS:
            raise GuideError(f"Unknown kind '{kind}'. {near_matches(kind, KINDS)}")
    if config.predictive not in (None, *PREDICTIVES):
        raise GuideError(f"Unknown predictive '{config.predictive}'. {near_matches(config.predictive, PREDICTIVES)}")
    least = {"num_samples": 2, "effect_images": 1, "most_exact": 1, "bins": 1, "num_bootstrap": 2}
    for name, value in least.items():
        if getattr(config, name) < value:
            raise DataError(f"{name} must be at least {value}, but is {getattr(config, name)}. Leave it out.")
    if config.effect_draws < 0 or config.effect_draws == 1:
        raise DataError(f"effect_draws must be 0, or at least 2, but is {config.effect_draws}. Leave it out.")
    if not 0 < config.level < 1:
        raise DataError(f"A level between 0 and 1 is needed, got {config.level}. Use 0.95.")
    return config
