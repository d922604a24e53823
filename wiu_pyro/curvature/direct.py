"""Per-sample gradients at any parameters, by differentiating the network itself.

For layers whose input and output do not show their Jacobian (see `layers_to_differentiate`): all data at once under
`torch.func.vmap`, or one datum at a time where an operation of the network has no such form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributions import Distribution
from typing_extensions import override

from wiu_pyro.curvature.layer_record import CapturedBatch, plain_attention
from wiu_pyro.curvature.likelihood import OutputLikelihood
from wiu_pyro.curvature.rules import DirectRule, LayerRule
from wiu_pyro.curvature.rules.base import MAX_ELEMENTS
from wiu_pyro.curvature.rules.direct import DirectSource
from wiu_pyro.errors import CurvatureError

__all__ = ["TOLERANCE", "DirectLayers", "Forward", "direct_layers"]

Batch = tuple[torch.Tensor, ...]
Weights = Mapping[str, torch.Tensor]
Sites = Mapping[str, Mapping[str, str]]
Forward = Callable[[Batch, Weights], OutputLikelihood]

TOLERANCE = 1e-3  # of the largest gradient: rounding in float32; a mistake is as large as the gradient itself


@dataclass
class DirectLayers(DirectSource):
    """Gradients of a network's output at the parameters of some layers, for one batch after another.

    Attributes
    ----------
    forward : callable
        Maps a batch and weights by site to the `OutputLikelihood`.
    weights : mapping of site to Tensor
        All weights.
    sites : mapping of layer to mapping of parameter to site
        The layers to differentiate at.
    rules : mapping of layer to DirectRule
        Their rules; bound to this object while a batch is under way.
    """

    forward: Forward
    weights: Weights
    sites: Sites
    rules: Mapping[str, DirectRule]
    _serial: int = 0
    _batch: Batch = ()
    _columns: torch.Tensor | None = None
    _vectorised: bool = True
    _compared: set[torch.Size] = field(default_factory=set)  # numbers of columns and data
    _cache: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = {site: value.detach() for site, value in self.weights.items()}

    @contextmanager
    def add_to(self, captured: CapturedBatch, batch: Batch, *, columns: torch.Tensor) -> Iterator[None]:
        """Put the layers into what a batch shows of the others, for as long as the context lasts.

        Parameters
        ----------
        captured : CapturedBatch
            Gets, for each layer, the numbers of batch and datum as its input, a Tensor of int64 of shape (batch, 2),
            and `columns` as its gradients.
        batch : tuple of Tensor
        columns : Tensor, shape (columns, batch, outputs)
            What is passed backwards at the output.

        Yields
        ------
        None
        """
        self._serial += 1
        self._batch, self._columns = batch, columns
        numbers = torch.arange(columns.shape[1], device=columns.device)
        rows = torch.stack([torch.full_like(numbers, self._serial), numbers], -1)
        for name, rule in self.rules.items():
            captured.inputs[name], captured.grads[name] = rows, columns
            rule.bind(self, name)
        try:
            yield
        finally:
            self._batch, self._columns = (), None
            self._cache.clear()
            for name, rule in self.rules.items():
                rule.bind(None, name)

    @override
    def jacobian(self, layer: str, rows: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        total = len(rows) * len(grads) * sum(rule.numel for rule in self.rules.values())
        if total > MAX_ELEMENTS:  # not worth keeping the other layers' for when they are asked for
            return self._gradients([layer], self._numbers(rows), grads)[layer]
        key = self._key(rows, grads)
        if key is None or self._cache.get("jacobian", (None,))[0] != key:
            self._cache["jacobian"] = (key, self._gradients(list(self.rules), self._numbers(rows), grads))
        return self._cache["jacobian"][1][layer]

    @override
    def squared_sum(self, layer: str, rows: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        key = self._key(rows, grads)
        if key is None or self._cache.get("squares", (None,))[0] != key:
            self._cache["squares"] = (key, self._squares(self._numbers(rows), grads))
        return self._cache["squares"][1][layer]

    def _squares(self, numbers: torch.Tensor, grads: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the summed squares of all layers, with bounded memory: some columns of some data at a time."""
        total = sum(rule.numel for rule in self.rules.values())
        columns_step = max(1, min(len(grads), MAX_ELEMENTS // total))
        step = max(1, MAX_ELEMENTS // (columns_step * total))
        sums: dict[str, torch.Tensor] = {name: grads.new_zeros(rule.numel) for name, rule in self.rules.items()}
        for start in range(0, len(numbers), step):
            rows = slice(start, start + step)
            for first in range(0, len(grads), columns_step):
                some = grads[first : first + columns_step, rows]
                for name, found in self._gradients(list(self.rules), numbers[rows], some).items():
                    sums[name] += found.square().sum((0, 1))
        return sums

    def _key(self, rows: torch.Tensor, grads: torch.Tensor) -> tuple[Any, ...] | None:
        # only views of this batch's own columns, which stay alive and unchanged, can be told from one another
        columns = self._columns
        if columns is None or grads.untyped_storage().data_ptr() != columns.untyped_storage().data_ptr():
            return None
        return (*rows.flatten().tolist(), grads.storage_offset(), grads.shape, grads.stride())

    def _numbers(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) and not (rows[:, 0] == self._serial).all():
            raise CurvatureError(
                f"The Jacobian of batch {int(rows[0, 0])} was asked for, but the pass has gone on to batch "
                f"{self._serial}. Use each batch of a CurvaturePass before asking for the next."
            )
        return rows[:, 1]

    def _gradients(self, layers: list[str], numbers: torch.Tensor, grads: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return each layer's per-sample gradients, shape (batch, columns, numel), in its rule's order."""
        sites = [site for layer in layers for site in self.sites[layer].values()]
        data = tuple(part[numbers] for part in self._batch)
        found = self._tried_at_once(sites, data, grads) if self._vectorised else None
        self._vectorised = found is not None
        if found is None:
            found = self._one_by_one(sites, data, grads)
        return {
            layer: self.rules[layer].join({key: found[site] for key, site in self.sites[layer].items()})
            for layer in layers
        }

    def _tried_at_once(self, sites: list[str], data: Batch, grads: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Return the gradients of all data by vmap, or None where an operation of the network cannot do that."""
        try:
            found = self._at_once(sites, data, grads)
        except (RuntimeError, ValueError, TypeError):  # the loop shows an error that is not vmap's
            return None
        if grads.shape[:2] in self._compared:
            return found
        # under vmap some of torch's operations (PReLU's backward) take one dim for another: the last datum alone tells
        alone = self._one_by_one(sites, tuple(part[-1:] for part in data), grads[:, -1:])
        for site, one in alone.items():
            if (found[site][-1] - one[0]).abs().max() > TOLERANCE * one.abs().max():
                return None
        self._compared.add(grads.shape[:2])
        return found

    def _at_once(self, sites: list[str], data: Batch, grads: torch.Tensor) -> dict[str, torch.Tensor]:
        own = {site: self.weights[site] for site in sites}

        def of_datum(datum: Batch, columns: torch.Tensor) -> dict[str, torch.Tensor]:
            one = tuple(part[None] for part in datum)
            pull = torch.func.vjp(lambda values: self.forward(one, {**self.weights, **values}).output[0], own)[1]
            return torch.func.vmap(lambda column: pull(column)[0])(columns)

        with plain_attention(), _unchecked_distributions():
            return torch.func.vmap(of_datum, in_dims=(0, 1), randomness="different")(data, grads)

    def _one_by_one(self, sites: list[str], data: Batch, grads: torch.Tensor) -> dict[str, torch.Tensor]:
        own = {site: self.weights[site].clone().requires_grad_() for site in sites}
        parts: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
        for row in range(grads.shape[1]):
            one = tuple(part[row : row + 1] for part in data)
            with torch.enable_grad(), plain_attention():
                output = self.forward(one, {**self.weights, **own}).output[0]
            columns = [
                torch.autograd.grad(output, list(own.values()), column, retain_graph=True, materialize_grads=True)
                for column in grads[:, row]
            ]
            for place, site in enumerate(sites):
                parts[site].append(torch.stack([found[place] for found in columns]))
        return {site: torch.stack(found) for site, found in parts.items()}


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """Make distributions without a look at their parameters' values, which vmap does not show."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def direct_layers(
    forward: Forward, weights: Weights, *, rules: Mapping[str, LayerRule], sites: Sites
) -> DirectLayers | None:
    """Return what differentiates at the layers that have a `DirectRule`, or None where none has.

    Parameters
    ----------
    forward : callable
        Maps a batch and weights by site to the `OutputLikelihood`.
    weights : mapping of site to Tensor
        All weights.
    rules : mapping of layer to LayerRule
    sites : mapping of layer to mapping of parameter to site

    Returns
    -------
    DirectLayers or None
    """
    own = {name: rule for name, rule in rules.items() if isinstance(rule, DirectRule)}
    return DirectLayers(forward, weights, {name: sites[name] for name in own}, own) if own else None
