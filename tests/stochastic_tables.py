"""Tables as `interventions.stochastic_layers` returns them, with figures set by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

LAYERS = ("fc1", "fc2", "fc3")
METRICS = ("nll", "brier", "error", "output_variance", "probability_variance", "ece", "auroc_mutual_information")
MEMBERS = {
    "none": (),
    "only fc1": ("fc1",),
    "only fc2": ("fc2",),
    "only fc3": ("fc3",),
    "last 2": ("fc2", "fc3"),
    "first 2": ("fc1", "fc2"),
    "all but fc2": ("fc1", "fc3"),
    "all": LAYERS,
}


def stochastic_table(
    *,
    difference: float = 0.0,
    half_width: float = 0.01,
    shapley: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    effect_half: float = 0.02,
    together: float = 0.0,
    refitted: bool = True,
    shift: float = 0.05,
    **attrs: object,
) -> xr.Dataset:
    """Return a table in which every set differs by `difference` from the whole, and refitted ones by `shift` more."""
    names, kinds = list(MEMBERS), ["restricted", "refitted"]
    shape = (len(kinds), len(names), len(METRICS))
    away = np.full(shape, difference)
    away[1] += shift
    away[:, -1] = 0
    if not refitted:
        away[1] = np.nan
    low, high = away - half_width, away + half_width
    low[:, -1] = high[:, -1] = np.nan
    member = np.array([[layer in held for layer in LAYERS] for held in MEMBERS.values()], dtype=np.int8)
    share = np.broadcast_to(member @ np.asarray(shapley), (2, len(kinds), len(names))).copy()
    if not refitted:
        share[:, 1] = np.nan
    half = np.where(np.arange(len(names)) == len(names) - 1, np.nan, 0.01)
    effects = np.stack([np.asarray(shapley) - together / 2, np.asarray(shapley) + together / 2, np.asarray(shapley)])
    effects = np.broadcast_to(effects[:, None], (3, 2, 3))
    dims, effect_dims = ("kind", "layer_set", "metric"), ("effect", "response", "layer")
    table = xr.Dataset(
        {
            "value": (("chain", *dims), (1 + away)[None]),
            "difference": (dims, away),
            "difference_low": (dims, low),
            "difference_high": (dims, high),
            "variance_share": (("response", "kind", "layer_set"), share),
            "variance_share_low": (("response", "kind", "layer_set"), share - half),
            "variance_share_high": (("response", "kind", "layer_set"), share + half),
            "member": (("layer_set", "layer"), member),
            "also": ("layer_set", [""] * len(names)),
            "refit_converged": (("chain", "layer_set"), np.full((1, len(names)), -1, dtype=np.int8)),
            "effect_share": (effect_dims, effects),
            "effect_se": (effect_dims, np.full((3, 2, 3), effect_half / 2)),
            "effect_low": (effect_dims, effects - effect_half),
            "effect_high": (effect_dims, effects + effect_half),
        },
        coords={
            "kind": kinds,
            "layer_set": names,
            "metric": list(METRICS),
            "response": ["probability", "output"],
            "effect": ["first_order", "total", "shapley"],
            "layer": list(LAYERS),
            "chain": [0],
        },
    )
    held = {"level": 0.95, "num_seeds": 1, "num_images": 500, "interval": "images", "effect_interval": "draws"}
    held |= {"effect_draws": 50, "converged": "yes", "refitted_reason": "", "effects_reason": ""}
    return table.assign_attrs(held | attrs)
