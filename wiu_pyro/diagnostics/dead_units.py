"""Units of which the data say nothing: all their weights are still at the prior.

By the conditional sd where there is one: a weight whose marginal sd is the prior's can still be tied to others by the
data, as in a posterior of few determined directions most weights are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wiu_pyro.diagnostics.units import Units, contraction

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
    r"""Return the units of one network's layer all of whose weights have the prior's sd, given all others if known.

    Parameters
    ----------
    units : Units
    tolerance : float
        A weight is at the prior where its contraction, 1 - sd² / prior sd², lies within +/- `tolerance`. Weights fixed
        at a point estimate do not count; a unit of such weights alone is not dead.

    Returns
    -------
    DeadUnits
    """
    found = contraction(units.weight, conditional=True)
    unknown = np.isnan(found)
    away = np.abs(found, out=found) >= tolerance  # False where NaN
    outputs, inputs = ~away.any(axis=(1, 2)), ~away.any(axis=(0, 2))
    free_out, free_in = ~unknown.all(axis=(1, 2)), ~unknown.all(axis=(0, 2))
    if units.bias is not None:
        bias = contraction(units.bias, conditional=True)
        outputs &= ~(np.abs(bias) >= tolerance)
        free_out |= ~np.isnan(bias)
    return DeadUnits(np.flatnonzero(outputs & free_out).tolist(), np.flatnonzero(inputs & free_in).tolist())
