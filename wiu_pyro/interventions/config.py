"""The settings of a pruning experiment, read from its options and checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.interventions.criteria import CRITERIA
from wiu_pyro.interventions.ranking import RANKINGS

__all__ = ["PruneConfig", "read_config"]

SDS = ("marginal", "conditional")


@dataclass(frozen=True)
class PruneConfig:
    """Settings of `prune`.

    Attributes
    ----------
    criteria : tuple of str or None
        Names of `CRITERIA`; all that the posterior allows when None.
    sparsities : tuple of float
        Shares of the weights to remove, ascending, between 0 and 1.
    rankings : tuple of {"global", "uniform"}
        ``"global"`` ranks all weights together, ``"uniform"`` takes the same share from each layer.
    per_layer : bool
        Also prune one layer at a time.
    sd : {"marginal", "conditional"}
        Which sd signal-to-noise, KL and model reduction take.
    num_samples : int
        Draws of the posterior behind the pruned predictive, at least 2; 0 leaves it out.
    compensate : bool
        Also let the remaining weights follow those that go, along the posterior's correlations.
    fine_tune_epochs : int
        Also train the remaining weights on for so many epochs, each pruned network by itself; 0 leaves it out.
    learning_rate : float
        Of fine-tuning, by Adam.
    margin : float
        By how much the error, a share, may rise for a network still to count as no worse.
    level : float
        Of intervals and tests.
    seed : int
        Of chance: ties, the random ranking, draws, fine-tuning, resampling.
    """

    criteria: tuple[str, ...] | None = None
    sparsities: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)
    rankings: tuple[str, ...] = RANKINGS
    per_layer: bool = True
    sd: str = "marginal"
    num_samples: int = 0
    compensate: bool = False
    fine_tune_epochs: int = 0
    learning_rate: float = 1e-3
    margin: float = 0.001
    level: float = 0.95
    seed: int = 0


def read_config(options: dict[str, Any]) -> PruneConfig:
    """Return the settings, or raise DataError with the option that is wrong."""
    known = [item.name for item in fields(PruneConfig)]
    for name in options:
        if name not in known:
            raise DataError(f"prune has no option '{name}'. {near_matches(name, known)}")
    lists = {name: tuple(options[name]) for name in ("criteria", "sparsities", "rankings") if options.get(name)}
    config = PruneConfig(**{**options, **lists})
    for name in config.criteria or ():
        if name not in CRITERIA:
            raise DataError(f"Unknown criterion of pruning '{name}'. {near_matches(name, CRITERIA)}")
    for name in config.rankings:
        if name not in RANKINGS:
            raise DataError(f"Unknown ranking '{name}'. {near_matches(name, RANKINGS)}")
    if config.sd not in SDS:
        raise DataError(f"Unknown sd '{config.sd}'. {near_matches(config.sd, SDS)}")
    _check_numbers(config)
    return config


def _check_numbers(config: PruneConfig) -> None:
    shares = config.sparsities
    if not shares or any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise DataError(f"Shares to remove must ascend between 0 and 1, got {shares}. Pass for example (0.9, 0.95).")
    if config.num_samples < 0 or config.num_samples == 1 or config.fine_tune_epochs < 0:
        raise DataError(
            "num_samples must be 0 or at least 2 and fine_tune_epochs 0 or more, got "
            f"{config.num_samples} and {config.fine_tune_epochs}. Leave them out for none."
        )
    if not (0 < config.margin < 1 and 0.5 < config.level < 1 and config.learning_rate > 0):
        raise DataError(
            "A margin between 0 and 1, a level between 0.5 and 1 and a positive learning_rate are needed, got "
            f"{config.margin}, {config.level}, {config.learning_rate}. A margin of 0.1 percentage points is 0.001."
        )
