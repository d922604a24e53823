"""A table of pruned networks made by hand, as `wiu_pyro.interventions.prune` gives it, with known figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from wiu_pyro.interventions.config import PruneConfig
from wiu_pyro.interventions.pruning_table import add_seeds

__all__ = ["SHARES", "pruned"]

SHARES = (0.5, 0.9, 0.95, 0.99)
CRITERIA = ("signal_to_noise", "magnitude", "random")
RISE = {
    "signal_to_noise": (0, 0.0005, 0.001, 0.003),
    "magnitude": (0, 0.002, 0.01, 0.3),
    "random": (0.5, 0.8, 0.88, 0.88),
}


def pruned(
    *,
    safe: Mapping[str, float] | None = None,
    common: float = 0.5,
    evidence: float = 0.8,
    chains: int = 1,
    fine_tuned: bool = False,
    predictive: bool = False,
) -> xr.Dataset:
    """Return the table: unpruned error 2 %, and rises by criterion at 50, 90, 95 and 99 % removed."""
    safe = safe or {"signal_to_noise": 0.95, "magnitude": 0.5, "random": 0.0}
    procedures = ["one_shot", "fine_tuned"] if fine_tuned else ["one_shot"]
    networks = ["mean", "predictive"] if predictive else ["mean"]
    dims = ("procedure", "ranking", "criterion", "network")
    rise = np.array([RISE[name] for name in CRITERIA])[None, None, :, None, :]
    rise = np.tile(rise, (len(procedures), 2, 1, len(networks), 1)).astype(float)
    held = np.array([safe[name] for name in CRITERIA])[None, None, :, None]
    held = np.tile(held, (len(procedures), 2, 1, len(networks)))
    if fine_tuned:
        rise[1], held[1, :, 0] = 0, 0.99
        if predictive:
            rise[1, :, :, 1] = held[1, :, :, 1] = np.nan
    layer_rise = np.stack([np.array([RISE[name] for name in CRITERIA])] * 2) * np.array([0.1, 2])[:, None, None]
    overlap = np.full((3, 3, len(SHARES)), 0.99)
    overlap[:, :, -1] = common
    data = {
        "error": ((*dims, "sparsity"), 0.02 + rise),
        "error_difference": ((*dims, "sparsity"), rise),
        "error_difference_low": ((*dims, "sparsity"), rise - 0.0005),
        "error_difference_high": ((*dims, "sparsity"), rise + 0.0005),
        "nll": ((*dims, "sparsity"), 0.08 + rise),
        "ece": ((*dims, "sparsity"), 0.01 + rise),
        "safe_sparsity": (dims, held),
        "unpruned_error": ("network", np.full(len(networks), 0.02)),
        "unpruned_nll": ("network", np.full(len(networks), 0.08)),
        "unpruned_ece": ("network", np.full(len(networks), 0.01)),
        "layer_error": (("layer", "criterion", "sparsity"), 0.02 + layer_rise),
        "layer_error_difference": (("layer", "criterion", "sparsity"), layer_rise),
        "layer_error_difference_low": (("layer", "criterion", "sparsity"), layer_rise - 0.0005),
        "layer_error_difference_high": (("layer", "criterion", "sparsity"), layer_rise + 0.0005),
        "layer_safe_sparsity": (("layer", "criterion"), [[0.99] * 3, [0.0] * 3]),
        "kept_in_common": (("criterion", "other", "sparsity"), overlap),
        "evidence_sparsity": ((), evidence),
        "num_candidates": ("layer", [300_000, 4_000]),
    }
    coords = {
        "procedure": procedures,
        "ranking": ["global", "uniform"],
        "criterion": list(CRITERIA),
        "other": list(CRITERIA),
        "network": networks,
        "layer": ["fc1", "fc2"],
        "sparsity": list(SHARES),
    }
    attrs = {"margin": 0.001, "level": 0.95, "num_networks": chains, "num_images": 10_000, "converged": "yes"}
    attrs |= {"predictive": "sampled", "factorised": 1, "left_out": ""}
    table = xr.Dataset(data, coords=coords, attrs=attrs)
    if chains > 1:
        table = xr.concat([table] * chains, dim="chain").assign_coords(chain=np.arange(chains))
        table = add_seeds(table, PruneConfig(sparsities=SHARES), replicates=chains)
    return table
