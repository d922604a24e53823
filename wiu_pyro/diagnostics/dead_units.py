"""Units of which the data say nothing: all their weights are still at the prior.

By mean and sd, the conditional sd where there is one: a weight whose marginal sd is the prior's can still be tied to
others by the data, as in a posterior of few determined directions most weights are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wiu_pyro.diagnostics.units import Moments, Units, contraction

__all__ = ["DeadUnits", "dead_units"]


@dataclass(frozen=True)
class DeadUnits:
    """Places of a layer's dead outputs and inputs.

    Attributes
    ----------
    outputs : list of int
        Outputs all of whose incoming weights, the bias among them, are at the prior.
    inputs : list of int
        Inputs all of whose weights in this layer are: outgoing weights of the unit, channel or pixel that feeds it.
    """

    outputs: list[int]
    inputs: list[int]


def dead_units(units: Units, *, tolerance: float) -> DeadUnits:
    r"""Return the units of one network's layer all of whose weights have the prior's mean and sd.

    The sd is that given all other weights where it is known.

    Parameters
    ----------
    units : Units
    tolerance : float
        A weight is at the prior where its contraction, 1 - sd² / prior sd², lies within +/- `tolerance`, and the square
        of its mean's distance from the prior's, in prior sds, below it: a KL from the prior of about half of it.
        Weights fixed at a point estimate do not count; a unit of such weights alone is not dead.

    Returns
    -------
    DeadUnits
    """
    away, unknown = _away(units.weight, tolerance)
    outputs, inputs = ~away.any(axis=(1, 2)), ~away.any(axis=(0, 2))
    free_out, free_in = ~unknown.all(axis=(1, 2)), ~unknown.all(axis=(0, 2))
    if units.bias is not None:
        away, unknown = _away(units.bias, tolerance)
        outputs &= ~away
        free_out |= ~unknown
    return DeadUnits(np.flatnonzero(outputs & free_out).tolist(), np.flatnonzero(inputs & free_in).tolist())


def _away(moments: Moments, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which weights are away from the prior, and which have no uncertainty at all."""
    found = contraction(moments, conditional=True)
    unknown = np.isnan(found)
    away = np.abs(found, out=found) >= tolerance  # False where NaN
    shift = np.square((moments.mean - moments.prior_mean) / moments.prior_sd)
    return away | (~unknown & (shift >= tolerance)), unknown
