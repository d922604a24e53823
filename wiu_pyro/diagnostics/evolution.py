"""How the uncertainty of each layer moved during the training: the figures of the layer table, record by record."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import metrics
from wiu_pyro.diagnostics.moments import squeeze_chain
from wiu_pyro.diagnostics.provenance import carried_attrs
from wiu_pyro.diagnostics.seeds import num_seeds
from wiu_pyro.diagnostics.training_records import training_records
from wiu_pyro.metrics import FEWEST_SEEDS

__all__ = ["evolution"]

LEVEL = 0.95


def evolution(idata: Any) -> xr.Dataset:
    """Return the figures of each layer through the training.

    They are the layer table's, from the posterior's closed form as it stood at each record. A point estimate had no
    posterior while it was trained: there they come from a cheap one around it, the diagonal of the curvature over some
    of the training data, and differ from those of the final posterior; attribute ``tracked_curvature`` says which, and
    ``tracked_data`` how many data.

    Parameters
    ----------
    idata : InferenceData or DataTree
        From a fit with ``track=``.

    Returns
    -------
    Dataset, dims (epoch, layer) or, with several chains, (chain, epoch, layer)
        ``kl``, ``kl_per_weight`` in nats; ``contraction`` and, where the posterior does not factorise,
        ``conditional_contraction``; ``sd_q05``, ``sd_q50``, ``sd_q95``, ``mean_abs`` in units of the weight;
        ``sd_to_prior``, ``snr_q05``, ``snr_q50``, ``snr_q95``; ``mean_to_prior`` and ``mean_change``, in prior sds: rms
        distance of the means from the prior's, and from where they were at the record before. ``loss`` (epoch) in nats
        and ``validation_*``. With 5 seeds or more, for each figure its mean over them, ``seeds_*`` (epoch, layer), with
        ``_low`` and ``_high``: 95 % at each epoch, together over the layers. Coordinate ``epoch``: epochs done.
        ``full_rate_epochs``: those at the full learning rate.

    Raises
    ------
    SchemaError
        If the fit kept no figures of its layers.
    """
    table = training_records(idata)
    names = [str(name) for name, values in table.data_vars.items() if "layer" in values.dims]
    seeds = num_seeds(idata)
    if seeds >= FEWEST_SEEDS:
        for name in names:
            _add_seeds(table, name)
    data = table["tracked_data"].max() if "tracked_data" in table else np.nan
    table.attrs |= carried_attrs(idata) | {"num_seeds": seeds, "tracked_data": float(data)}
    table["epoch"].attrs["long_name"] = "epochs done"
    return squeeze_chain(table.drop_vars("tracked_data", errors="ignore"))


def _add_seeds(table: xr.Dataset, name: str) -> None:
    """Write a figure's mean over the seeds with its interval at each epoch, the layers together."""
    by_epoch = [
        metrics.student_intervals(values, level=LEVEL) for values in table[name].transpose("epoch", "chain", ...).values
    ]
    for end, part in {"": "estimate", "_low": "low", "_high": "high"}.items():
        values = np.stack([getattr(found, part) for found in by_epoch])
        table[f"seeds_{name}{end}"] = (("epoch", "layer"), values, {"long_name": f"mean over the seeds of {name}"})
