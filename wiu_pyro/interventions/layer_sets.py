"""Sets of layers that keep their uncertainty: one alone, the last or first k, all but one, all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wiu_pyro.errors import GuideError, near_matches

__all__ = ["FAMILIES", "LayerSet", "layer_sets"]

FAMILIES = ("only", "last", "first", "all_but")


@dataclass(frozen=True)
class LayerSet:
    """Layers that are uncertain while the others stand still.

    Attributes
    ----------
    name : str
        ``"none"``, ``"only fc1"``, ``"last 2"``, ``"first 2"``, ``"all but fc1"`` or ``"all"``.
    layers : tuple of str
    also : tuple of str
        Other names of the same set: the last layer alone is ``"only fc3"`` and ``"last 1"``.
    """

    name: str
    layers: tuple[str, ...]
    also: tuple[str, ...] = ()


def layer_sets(layers: Sequence[str], families: Sequence[str] = FAMILIES) -> list[LayerSet]:
    """Return the sets of the families asked for, each once; first no layer, last all of them.

    Parameters
    ----------
    layers : sequence of str
        Those with a posterior, in the network's order.
    families : sequence of {"only", "last", "first", "all_but"}

    Returns
    -------
    list of LayerSet

    Raises
    ------
    GuideError
        If a family is unknown.

    Examples
    --------
    >>> [found.name for found in layer_sets(["a", "b", "c"])]
    ['none', 'only a', 'only b', 'only c', 'last 2', 'first 2', 'all but b', 'all']
    """
    for family in families:
        if family not in FAMILIES:
            raise GuideError(f"Unknown family of layer sets '{family}'. {near_matches(family, FAMILIES)}")
    layers, num = tuple(layers), len(layers)
    sizes = range(1, num)
    named: list[tuple[str, tuple[str, ...]]] = [("all", layers)]
    members = {
        "only": [(f"only {name}", (name,)) for name in layers],
        "last": [(f"last {size}", layers[num - size :]) for size in sizes],
        "first": [(f"first {size}", layers[:size]) for size in sizes],
        "all_but": [(f"all but {name}", tuple(one for one in layers if one != name)) for name in layers if num > 1],
    }
    for family in FAMILIES:
        if family in families:
            named += members[family]
    by_layers: dict[tuple[str, ...], list[str]] = {}
    for name, held in named:
        by_layers.setdefault(held, []).append(name)
    whole = by_layers.pop(layers)
    found = [LayerSet(names[0], held, tuple(names[1:])) for held, names in by_layers.items()]
    return [LayerSet("none", ()), *found, LayerSet(whole[0], layers, tuple(whole[1:]))]
