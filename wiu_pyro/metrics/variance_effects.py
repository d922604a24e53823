r"""Which inputs of a function its variance comes from: first-order, total and Shapley effects, from pick-freeze draws.

For independent inputs :math:`w_1, …, w_L`, here the layers of a network, everything follows from the expected variance
that is left when all inputs outside a set S are known, :math:`c(S) = E\,Var(f \mid w_{-S})`. With draws w and w' and
f_S the function at w with the inputs in S taken from w', it is :math:`c(S) = \tfrac12 E (f_∅ - f_S)^2` (Jansen 1999).
The total effect is c of the input alone, the first-order effect c of all less c of all but the input, and the Shapley
effect the mean of :math:`c(S ∪ i) - c(S)` over all orders in which inputs may join. Sets are written as bits: input i
is in set number s where ``s >> i & 1``.

References
----------
Sobol' (2001), Global sensitivity indices for nonlinear mathematical models. Saltelli et al. (2010), Variance based
sensitivity analysis of model output, table 2. Jansen (1999), Analysis of variance designs for model output.
Owen (2014), Sobol' indices and Shapley value. Song, Nelson and Staum (2016), Shapley effects for global sensitivity
analysis: theory and computation, eq. 10 and algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wiu_pyro.errors import DataError

__all__ = ["Effects", "path_effects", "pick_freeze_costs", "subset_effects", "variance_shares"]


@dataclass(frozen=True)
class Effects:
    """What inputs add to a variance, not yet divided by it; in the unit of the output squared.

    Attributes
    ----------
    variance : float
        Of the output.
    first_order, total, shapley : ndarray, shape (inputs,)
        Removed from the variance by knowing the input alone; left by not knowing it alone; its fair share.
    """

    variance: float
    first_order: np.ndarray
    total: np.ndarray
    shapley: np.ndarray


def pick_freeze_costs(outputs: ArrayLike) -> np.ndarray:
    """Return the expected variances that all sets of inputs leave, from the outputs at all mixtures of two draws.

    Any two outputs that differ in the inputs of S, whichever draw the others come from, tell of c(S): all of them are
    averaged.

    Parameters
    ----------
    outputs : array_like, shape (2 ** inputs, ...)
        Output number s has the inputs of set s from the second draw, the others from the first. What follows is summed
        over: images, classes.

    Returns
    -------
    ndarray, shape (2 ** inputs,), float64
        Unbiased for c(S), where the inputs are independent.

    Raises
    ------
    DataError
        If the outputs are not those of all sets.

    Examples
    --------
    >>> pick_freeze_costs([[0.0], [2.0], [1.0], [3.0]])  # x + y with x from 0 to 2 and y from 0 to 1
    array([0. , 2. , 0.5, 2.5])
    """
    table = np.asarray(outputs, dtype=np.float64)
    table = table.reshape(len(table), -1)
    if len(table) < 2 or len(table) & (len(table) - 1):
        raise DataError(
            f"Outputs of all 2 ** inputs sets are needed, got {len(table)}. Put the sets on the first axis."
        )
    table = table - table.mean(axis=0)
    products = table @ table.T
    squares, numbers = products.diagonal(), np.arange(len(table))
    return np.array([np.mean(squares - products[numbers, numbers ^ one]) for one in numbers])


def subset_effects(costs: ArrayLike) -> Effects:
    """Return the effects from the expected variances that all sets leave; the Shapley effects exactly.

    Parameters
    ----------
    costs : array_like, shape (2 ** inputs,)
        c(S) of each set, from `pick_freeze_costs` or a closed form; that of the empty set is 0.

    Returns
    -------
    Effects

    Examples
    --------
    >>> found = subset_effects([0.0, 3.0, 2.0, 4.0])  # an interaction of 1
    >>> found.first_order.tolist(), found.total.tolist(), found.shapley.tolist()
    ([2.0, 1.0], [3.0, 2.0], [2.5, 1.5])
    """
    costs = np.asarray(costs, dtype=np.float64)
    num, every = (len(costs) - 1).bit_length(), len(costs) - 1
    numbers = np.arange(len(costs))
    sizes = np.array([int(number).bit_count() for number in numbers])
    weights = np.array([1 / (num * math.comb(num - 1, size)) for size in range(num)])
    shapley = np.empty(num)
    for one in range(num):
        without = numbers[numbers >> one & 1 == 0]
        shapley[one] = weights[sizes[without]] @ (costs[without | 1 << one] - costs[without])
    alone = 1 << np.arange(num)
    return Effects(float(costs[every]), costs[every] - costs[every ^ alone], costs[alone], shapley)


def path_effects(costs: Mapping[int, float], order: Sequence[int]) -> Effects:
    """Return the effects of one order in which the inputs join; its mean over random orders is the Shapley effect.

    Parameters
    ----------
    costs : mapping of int to float
        c of the set number: of each input alone, of all but each, of all, and of each start of the order.
    order : sequence of int
        All inputs, each once.

    Returns
    -------
    Effects
    """
    num, every = len(order), (1 << len(order)) - 1
    shapley, known = np.empty(num), 0
    for one in order:
        joined = known | 1 << one
        shapley[one] = costs[joined] - costs.get(known, 0.0)
        known = joined
    total = np.array([costs[1 << one] for one in range(num)])
    first = np.array([costs[every] - costs.get(every ^ 1 << one, 0.0) for one in range(num)])
    return Effects(costs[every], first, total, shapley)


def variance_shares(replicates: Sequence[Effects]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the effects as shares of the variance, with Monte Carlo standard errors over independent replicates.

    Parameters
    ----------
    replicates : sequence of Effects
        One of each pair of draws; a single one stands for a closed form.

    Returns
    -------
    shares : dict of str to ndarray, shape (inputs,)
        ``first_order``, ``total``, ``shapley``; NaN where the variance is 0. Shapley effects add up to 1.
    errors : dict of str to ndarray, shape (inputs,)
        Of the ratio of two means, by the delta method; 0 of a single replicate.
    """
    variance = np.array([one.variance for one in replicates])
    mean, num = variance.mean(), len(replicates)
    shares, errors = {}, {}
    for name in ("first_order", "total", "shapley"):
        parts = np.stack([getattr(one, name) for one in replicates])
        if not mean > 0:
            shares[name] = errors[name] = np.full(parts.shape[1], np.nan)
            continue
        shares[name] = parts.mean(axis=0) / mean
        spread = parts - shares[name] * variance[:, None]
        errors[name] = spread.std(axis=0, ddof=1) / (mean * num**0.5) if num > 1 else np.zeros(parts.shape[1])
    return shares, errors
