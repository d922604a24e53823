"""The networks behind an agreement, and who is set beside whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from wiu_pyro import schema
from wiu_pyro.diagnostics.agreement_values import (
    FunctionValues,
    LayerTable,
    function_values,
    is_one_posterior,
    layer_table,
)
from wiu_pyro.diagnostics.moments import layers_with_moments
from wiu_pyro.errors import SchemaError

__all__ = ["Member", "check_same_network", "members", "pairs"]


@dataclass
class Member:
    """One of the posteriors that are set side by side.

    Attributes
    ----------
    name : str
    idata : InferenceData or DataTree
    layers : list of str
    chains : int
    pooled : bool
        Whether its chains explore one posterior: one network, whatever their number.
    """

    name: str
    idata: Any
    layers: list[str]
    chains: int
    pooled: bool
    _read: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def networks(self) -> int:
        """How many networks it speaks of."""
        return 1 if self.pooled else self.chains

    def _chosen(self, network: int, chains: Sequence[int] | None) -> tuple[int, ...]:
        if not self.pooled:
            return (network,)
        return tuple(range(self.chains)) if chains is None else tuple(chains)

    def table(self, layer: str, network: int, chains: Sequence[int] | None = None) -> LayerTable:
        """Return a layer of one network; of a pooled member by some of its chains."""
        key = (layer, self._chosen(network, chains))
        if key not in self._read:
            self._read[key] = layer_table(self.idata, *key)
        return self._read[key]

    def function(self, network: int, chains: Sequence[int] | None = None) -> FunctionValues | None:
        """Return what it says of the images."""
        key = self._chosen(network, chains)
        if key not in self._read:
            self._read[key] = function_values(self.idata, key)
        return self._read[key]


def members(named: Mapping[str, Any]) -> list[Member]:
    """Return the posteriors as members, checked to be of the same network.

    Parameters
    ----------
    named : mapping of str to InferenceData or DataTree

    Returns
    -------
    list of Member
    """
    found = []
    for name, idata in named.items():
        layers = layers_with_moments(idata)
        chains = int(schema.dataset(idata, schema.moments_group(layers[0])).sizes["chain"])
        found.append(Member(name, idata, layers, chains, is_one_posterior(idata)))
    check_same_network(found)
    return found


def check_same_network(found: Sequence[Member]) -> None:
    """Check that posteriors are of networks of the same layers, and of as many networks.

    Parameters
    ----------
    found : sequence of Member

    Raises
    ------
    SchemaError
        Naming the two that differ and in what.
    """
    first = found[0]
    for other in found[1:]:
        if other.layers != first.layers:
            raise SchemaError(
                f"Posteriors over the same layers are needed, but '{first.name}' has {', '.join(first.layers)} and "
                f"'{other.name}' {', '.join(other.layers)}. Set side by side posteriors of one network."
            )
        if other.networks != first.networks:
            raise SchemaError(
                f"As many networks in every posterior are needed, each beside the same one, but '{first.name}' holds "
                f"{first.networks} and '{other.name}' {other.networks}. Join the same seeds with wiu_pyro.concat."
            )
        for layer in first.layers:
            shapes = [_shapes(one.idata, layer) for one in (first, other)]
            if shapes[0] != shapes[1]:
                raise SchemaError(
                    f"Weights of the same shapes are needed, but layer '{layer}' has {shapes[0]} in '{first.name}' "
                    f"and {shapes[1]} in '{other.name}'. Set side by side posteriors of one network."
                )


def _shapes(idata: Any, layer: str) -> dict[str, tuple[int, ...]]:
    data = schema.dataset(idata, schema.moments_group(layer))
    return {name: data[f"{prefix}mean"].shape[1:] for name, prefix in schema.moment_parameters(data).items()}


def pairs(found: Sequence[Member], reference: Member | None) -> list[tuple[Member, Member]]:
    """Return who is set beside whom: each posterior beside the reference first, then the posteriors among themselves.

    Parameters
    ----------
    found : sequence of Member
        Without the reference.
    reference : Member or None

    Returns
    -------
    list of (Member, Member)
    """
    beside = [] if reference is None else [(one, reference) for one in found]
    return [*beside, *combinations(found, 2)]
