"""A file whose layers' figures through the training are planted: each approaches its end in a time of its own.

`recorded({"fc1": 4.0, "out": 20.0})` builds it from time constants in epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from tests.planted import PlantedLayer, planted
from wiu_pyro import schema
from wiu_pyro.export.container import build

__all__ = ["Plan", "recorded", "with_training"]

ENDS = {"mean_to_prior": 0.8, "sd_to_prior": 0.4, "kl_per_weight": 1.2}


@dataclass(frozen=True)
class Plan:
    """How the training went; `noise` is relative, from record to record."""

    epochs: int = 100
    full: int = 70
    noise: float = 0.0
    chains: int = 1
    away: float = 1.0  # relative distance from the end at the start
    tail: float = 0.0  # relative change while the learning rate falls
    seed: int = 0
    factorised: bool = True
    attrs: tuple[tuple[str, Any], ...] = ()


def recorded(times: dict[str, float], plan: Plan | None = None, **options: Any) -> Any:
    """Return the file; `times` are the layers' time constants in epochs."""
    plan = replace(plan or Plan(), **options)
    rng = np.random.default_rng(plan.seed)
    done = np.arange(1, plan.epochs + 1)
    fall = plan.tail * np.clip((done - plan.full) / (plan.epochs - plan.full or 1), 0, 1)
    shape = (plan.chains, plan.epochs, len(times))
    approach = plan.away * np.exp(-done[:, None] / np.array(list(times.values())))
    figures = {
        name: end * (1 + approach + fall[:, None]) * (1 + plan.noise * rng.normal(size=shape))
        for name, end in ENDS.items()
    }
    loss = 1_000 * (1 + approach.max(axis=1)) * (1 + 1e-3 * plan.noise * rng.normal(size=shape[:2]))
    layers = {name: PlantedLayer(sd=np.full((plan.chains, 3, 4), 0.4)) for name in times}
    idata = planted(layers, factorised=plan.factorised, seed=list(range(plan.chains)), **dict(plan.attrs))
    return with_training(idata, figures, loss=loss, full=plan.full)


def with_training(
    idata: Any, figures: dict[str, np.ndarray], *, loss: np.ndarray | None = None, full: int | None = None, **more: Any
) -> Any:
    """Return the file with figures of its layers by epoch, each (chain, epoch, layer), in its group `training`."""
    groups = {name: schema.dataset(idata, name) for name in schema.groups(idata)}
    variables: dict[str, Any] = {
        name: (("chain", "epoch", "layer"), np.asarray(values, "f4")) for name, values in figures.items()
    }
    shape = next(iter(figures.values())).shape
    loss = np.linspace(2, 1, shape[1])[None].repeat(shape[0], 0) if loss is None else loss
    variables["loss"] = (("chain", "epoch"), np.asarray(loss, "f4"))
    variables |= {name: (("chain", "epoch"), np.asarray(values, "f4")) for name, values in more.items()}
    variables["full_rate_epochs"] = ("chain", np.full(shape[0], full or shape[1], "f4"))
    variables["tracked_data"] = (("chain", "epoch"), np.zeros(shape[:2], "f4"))
    attrs = {
        "tracked": "epochs",
        "tracked_structure": "mean-field",
        "tracked_curvature": "none",
        "tracked_factorised": 1,
    }
    coords = {"layer": schema.layer_names(idata), "epoch": np.arange(shape[1])}
    return build(groups | {"training": xr.Dataset(variables, coords=coords, attrs=attrs)})
