"""What the noise of a reference that is known by draws alone does to a correlation: its error, and its ceiling.

References
----------
Spearman (1910), Correlation calculated from faulty data (what a perfect answer reaches against a noisy one).
Quenouille (1956), Notes on bias in estimation (the jackknife, here over Markov chains).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from wiu_pyro.diagnostics.agreement_figures import RANKS, function_figures, layer_figures, pooled_rank
from wiu_pyro.diagnostics.agreement_pairs import Member
from wiu_pyro.diagnostics.agreement_values import KINDS

__all__ = ["network_rank", "no_noise", "noise_of"]

NOISY = ("function_rank", *RANKS, "network_rank")
MOST_SPLITS = 10  # of chains into halves


def network_rank(first: Member, second: Member, kind: str, network: int, chains: Any = None) -> float:
    """Return the rank correlation over the weights of all layers, the second by some of its chains.

    Parameters
    ----------
    first, second : Member
    kind : str
    network : int
    chains : sequence of int, optional

    Returns
    -------
    float
    """
    sides = ((first, None), (second, chains))
    return pooled_rank(*([one.table(layer, network, own) for layer in first.layers] for one, own in sides), kind)


def no_noise(layers: int) -> dict[str, Any]:
    """Return the variables of `noise_of`, all NaN.

    Parameters
    ----------
    layers : int
        Number of layers.

    Returns
    -------
    dict of str to (dims, ndarray)
    """
    data: dict[str, Any] = {}
    for name, end in product(NOISY, ("mc", "ceiling")):
        shape = () if name == "function_rank" else (len(KINDS),) if name == "network_rank" else (layers, len(KINDS))
        dims = ("layer", "kind")[2 - len(shape) :]
        data[f"{name}_{end}"] = (dims, np.full(shape, np.nan))
    return data


def noise_of(first: Member, second: Member, network: int) -> dict[str, Any]:
    """Return what the reference's own noise does to each correlation: Monte Carlo error and ceiling.

    Parameters
    ----------
    first, second : Member
        A posterior and the reference.
    network : int

    Returns
    -------
    dict of str to (dims, ndarray)
        ``<name>_mc`` and ``<name>_ceiling``.
    """
    data = no_noise(len(first.layers))

    def write(name: str, place: tuple[int, ...], value: float, error: float, ceiling: float) -> None:
        if np.isfinite(value):
            for end, found in (("mc", error), ("ceiling", ceiling)):
                data[f"{name}_{end}"][1][place] = found

    def function(chains: Any, other: Member = first, own: Any = None) -> float:
        sides = [other.function(network, own), second.function(network, chains)]
        return function_figures(*sides)["function_rank"][0] if None not in sides else float("nan")

    ceiling = _split_half_ceiling(second, lambda half, rest: function(rest, second, half)) if function(None) else np.nan
    write("function_rank", (), function(None), _jackknife_se(second, function), ceiling)
    for number, kind in enumerate(KINDS):
        rank = network_rank(first, second, kind, network)
        error = _jackknife_se(second, lambda chains, kind=kind: network_rank(first, second, kind, network, chains))
        ceiling = _split_half_ceiling(second, lambda half, rest, kind=kind: _halves(second, kind, half, rest))
        write("network_rank", (number,), rank, error, ceiling)
        for place, layer in enumerate(first.layers):
            _layer_noise(first, second, (layer, kind, network), lambda *a, at=(place, number): write(a[0], at, *a[1:]))
    return data


def _halves(member: Member, kind: str, half: Sequence[int], rest: Sequence[int]) -> float:
    tables = ([member.table(layer, 0, chains) for layer in member.layers] for chains in (half, rest))
    return pooled_rank(*tables, kind)


def _layer_noise(first: Member, second: Member, where: tuple[str, str, int], write: Any) -> None:
    layer, kind, network = where
    own = first.table(layer, network)
    for name in RANKS:

        def beside(chains: Any, name: str = name) -> float:
            return layer_figures(own, second.table(layer, network, chains), kind)[name]

        def within(half: Sequence[int], rest: Sequence[int], name: str = name) -> float:
            return layer_figures(*(second.table(layer, network, part) for part in (half, rest)), kind)[name]

        value = beside(None)
        if np.isfinite(value):
            write(name, value, _jackknife_se(second, beside), _split_half_ceiling(second, within))


def _jackknife_se(member: Member, figure: Callable[[Sequence[int] | None], float]) -> float:
    """Return the Monte Carlo standard error that the draws of a pooled member bring into a figure.

    Parameters
    ----------
    member : Member
        The reference.
    figure : callable
        Takes the chains that stand for it; None for all.

    Returns
    -------
    float
        0 of a member that is known exactly, NaN of a single chain.
    """
    if not member.pooled:
        return 0.0
    if member.chains < 2:
        return float("nan")
    left = [figure([c for c in range(member.chains) if c != out]) for out in range(member.chains)]
    spread = np.square(np.array(left) - np.mean(left)).sum()
    return float(np.sqrt((member.chains - 1) / member.chains * spread))


def _split_half_ceiling(member: Member, rank: Callable[[Sequence[int], Sequence[int]], float]) -> float:
    r"""Return the rank correlation that a perfect answer would reach against the draws of a pooled member.

    From the correlation r between halves of its chains, averaged over the splits: the whole has reliability
    :math:`2 r / (1 + r)`, and the truth correlates with it as the root of that.

    Parameters
    ----------
    member : Member
        The reference.
    rank : callable
        Rank correlation of what two sets of chains say.

    Returns
    -------
    float
        1 of a member that is known exactly, NaN of a single chain.

    References
    ----------
    .. [1] Spearman (1910), British Journal of Psychology 3.
    """
    if not member.pooled:
        return 1.0
    if member.chains < 2:
        return float("nan")
    everyone = range(member.chains)
    halves = list(combinations(everyone, member.chains // 2))[:MOST_SPLITS]
    found = [rank(half, [chain for chain in everyone if chain not in half]) for half in halves]
    mean = float(np.mean(found))
    return float(np.sqrt(max(2 * mean / (1 + mean), 0.0))) if mean > -1 else 0.0
