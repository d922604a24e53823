"""Per-sample gradients at any parameters, by differentiating the network itself, and which layers need that.

A layer's input and output show its Jacobian only where its own module is called, on data along the first dim, and its
weights are used nowhere else. `layers_to_differentiate` finds the others by one look at a few data; `DirectLayers`
gives their gradients: all data at once under `torch.func.vmap`, or one datum at a time where an operation of the
network has no such form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from typing_extensions import override

from wiu_pyro.curvature.capture import CapturedBatch, capture_layers, no_data_message, plain_attention
from wiu_pyro.curvature.likelihood import OutputLikelihood
from wiu_pyro.curvature.rules import DirectRule, LayerRule
from wiu_pyro.curvature.rules.base import MAX_ELEMENTS
from wiu_pyro.curvature.rules.direct import DirectSource
from wiu_pyro.errors import CurvatureError

__all__ = ["DirectLayers", "Forward", "direct_layers", "layers_to_differentiate"]

Batch = tuple[torch.Tensor, ...]
Weights = Mapping[str, torch.Tensor]
Sites = Mapping[str, Mapping[str, str]]
Forward = Callable[[Batch, Weights], OutputLikelihood]

NUM_LOOKED_AT = 3  # data that the first look takes


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
        found = None
        if self._vectorised:
            try:
                found = self._at_once(sites, data, grads)
            except (
                RuntimeError,
                ValueError,
                TypeError,
            ):  # an operation that vmap cannot do; the loop shows a true error
                self._vectorised = False
        if found is None:
            found = self._one_by_one(sites, data, grads)
        return {
            layer: self.rules[layer].join({key: found[site] for key, site in self.sites[layer].items()})
            for layer in layers
        }

    def _at_once(self, sites: list[str], data: Batch, grads: torch.Tensor) -> dict[str, torch.Tensor]:
        own = {site: self.weights[site] for site in sites}

        def of_datum(datum: Batch, columns: torch.Tensor) -> dict[str, torch.Tensor]:
            one = tuple(part[None] for part in datum)
            pull = torch.func.vjp(lambda values: self.forward(one, {**self.weights, **values}).output[0], own)[1]
            return torch.func.vmap(lambda column: pull(column)[0])(columns)

        with plain_attention(), pyro.validation_enabled(False):  # its checks look at values, which vmap does not show
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


def layers_to_differentiate(
    forward: Forward, weights: Weights, batch: Batch, *, rules: Mapping[str, LayerRule], sites: Sites
) -> frozenset[str]:
    """Return the layers whose Jacobian their own input and output do not show, by a look at a few data.

    A layer's rule stands when it gives, from what the first datum brings to the layer, the very gradient that reverse
    mode finds at its parameters, and no other datum's place in the layer has a part in it.

    Parameters
    ----------
    forward : callable
        Maps a batch and weights by site to the `OutputLikelihood`.
    weights : mapping of site to Tensor
    batch : tuple of Tensor
    rules : mapping of layer to LayerRule
    sites : mapping of layer to mapping of parameter to site

    Returns
    -------
    frozenset of str

    Raises
    ------
    CurvatureError
        If a layer's parameters do not shape the output.
    ModelError
        If a layer is called twice in one pass.
    """
    few = tuple(part[:NUM_LOOKED_AT] for part in batch)
    leaves = {site: weights[site].detach().clone().requires_grad_() for own in sites.values() for site in own.values()}
    modules = {name: rule.module for name, rule in rules.items() if not isinstance(rule, DirectRule)}
    with torch.enable_grad(), plain_attention(), capture_layers(modules) as record:
        output = forward(few, {**weights, **leaves}).output
    generator = torch.Generator().manual_seed(0)  # the user's random state stays as it is
    column = torch.zeros(output.shape, dtype=output.dtype)
    column[0] = torch.randn(output.shape[1:], generator=generator).to(output.dtype)
    targets = [*record.outputs.values(), *leaves.values()]
    found = torch.autograd.grad(output, targets, column.to(output.device), allow_unused=True)
    came_back = dict(zip(record.outputs, found, strict=False))
    at_sites = dict(zip(leaves, found[len(record.outputs) :], strict=True))
    needed = set()
    for name, rule in rules.items():
        gradients = {key: at_sites[site] for key, site in sites[name].items()}
        if all(gradient is None for gradient in gradients.values()):
            raise CurvatureError(no_data_message(name))
        expected = rule.join(
            {
                key: leaves[sites[name][key]].new_zeros(rule.shapes[key]) if gradient is None else gradient
                for key, gradient in gradients.items()
            }
        )
        grad = came_back.get(name)
        if grad is None or not _shown(rule, record.inputs[name], grad, expected=expected, num_data=len(few[0])):
            needed.add(name)
    return frozenset(needed)


def _shown(
    rule: LayerRule, layer_input: torch.Tensor, grad: torch.Tensor, *, expected: torch.Tensor, num_data: int
) -> bool:
    """Return whether input and output gradient of the first datum give the gradient at the parameters."""
    if len(layer_input) != num_data or len(grad) != num_data or grad[1:].any():
        return False
    found = rule.jacobian(layer_input[:1], grad[None, :1])[0, 0]
    tolerance = 1e-3 * float(expected.abs().max())
    return bool((found - expected).abs().max() <= tolerance)
