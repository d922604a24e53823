"""How each kind of layer enters the curvature: which inputs and output gradients make up its Jacobian.

A `MatrixRule` reads a layer as a matrix that multiplies patches of its input: for a datum the Jacobian is Σ_t g_t a_t',
over the positions t at which the weights are used (one for a Linear layer on vectors, all pixels for a convolution).
The bias is one more column, whose input is 1, so weight and bias share one block (Grosse and Martens 2016, section 3).
An `AffineRule` covers the elementwise scale and shift of normalisation layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from typing_extensions import override

from wiu_pyro.errors import ModelError

__all__ = ["AffineRule", "Conv2dRule", "LayerRule", "LinearRule", "MatrixRule", "rule_for", "supported_layers"]

MAX_ELEMENTS = 2**24  # elements of one chunk of per-sample Jacobians: 64 MB in float32


class LayerRule(ABC):
    """One layer's parameters as a flat vector, and its Jacobian from what went in and what came back.

    Parameters
    ----------
    module : Module
    shapes : dict of str to tuple of int
        Shapes of those of its parameters that have a posterior, by name (``"weight"``, ``"bias"``).
    """

    def __init__(self, module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
        self.module = module
        self.shapes = shapes
        self.numel = sum(torch.Size(shape).numel() for shape in shapes.values())

    @abstractmethod
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Put parameters of shape (..., *shape) into vectors of shape (..., numel)."""

    @abstractmethod
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take vectors of shape (..., numel) apart into parameters of shape (..., *shape)."""

    @abstractmethod
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return per-sample gradients.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        grads : Tensor, shape (columns, batch, *output_shape)
            Gradients with respect to the layer's output.

        Returns
        -------
        Tensor, shape (batch, columns, numel)
        """

    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        """Return the squares of the per-sample gradients, summed over batch and columns, shape (numel,)."""
        step = max(1, MAX_ELEMENTS // (grads.shape[0] * self.numel))
        total = layer_input.new_zeros(self.numel)
        for start in range(0, len(layer_input), step):
            rows = slice(start, start + step)
            total += self.jacobian(layer_input[rows], grads[:, rows]).square().sum((0, 1))
        return total


class MatrixRule(LayerRule):
    """A layer that multiplies patches of its input by a matrix of shape (groups, out, in [+ 1])."""

    def __init__(self, module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(module, shapes)
        self.groups = int(getattr(module, "groups", 1))
        out = next(iter(shapes.values()))[0]  # not module.weight: a PyroSample would draw
        self.out_features = out // self.groups
        self.in_features = self.numel // out

    @abstractmethod
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        """Return what the weight multiplies, shape (batch, groups, positions, in), without the bias column."""

    @abstractmethod
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        """Reshape (columns, batch, *output_shape) to (columns, batch, groups, positions, out)."""

    def inputs(self, layer_input: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the joint matrix, shape (batch, groups, positions, in [+ 1])."""
        patches = self.patches(layer_input)
        if "bias" not in self.shapes:
            return patches
        ones = patches.new_ones(*patches.shape[:-1], 1)
        return torch.cat([patches, ones], -1) if "weight" in self.shapes else ones

    @override
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        parts = []
        for name in ("weight", "bias"):
            if name in self.shapes:
                lead = values[name].shape[: values[name].dim() - len(self.shapes[name])]
                parts.append(values[name].reshape(*lead, self.groups, self.out_features, -1))
        return torch.cat(parts, -1).flatten(-3)

    @override
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        lead = flat.shape[:-1]
        matrix = flat.reshape(*lead, self.groups, self.out_features, self.in_features)
        values = {}
        if "weight" in self.shapes:
            weight = matrix[..., :-1] if "bias" in self.shapes else matrix
            values["weight"] = weight.reshape(*lead, *self.shapes["weight"])
        if "bias" in self.shapes:
            values["bias"] = matrix[..., -1].reshape(*lead, *self.shapes["bias"])
        return values

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        joint = torch.einsum("kngto,ngti->nkgoi", self.output_grads(grads), self.inputs(layer_input))
        return joint.flatten(-3)

    @override
    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        inputs, outputs = self.inputs(layer_input), self.output_grads(grads)
        if inputs.shape[2] > 1:
            return super().squared_sum(layer_input, grads)
        # one position: the square of an outer product is the outer product of squares
        squares = outputs.square().sum(0)[:, :, 0]  # (batch, groups, out)
        return torch.einsum("ngo,ngi->goi", squares, inputs[:, :, 0].square()).reshape(-1)


class LinearRule(MatrixRule):
    """`torch.nn.Linear`, on vectors or on each position of a sequence."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        return layer_input.reshape(len(layer_input), 1, -1, layer_input.shape[-1])

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        return grads.reshape(*grads.shape[:2], 1, -1, grads.shape[-1])


class Conv2dRule(MatrixRule):
    """`torch.nn.Conv2d` with any stride, padding, dilation and groups, as a matrix on unfolded patches."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        conv: Any = self.module
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = F.pad(layer_input, conv._reversed_padding_repeated_twice, mode=mode)
        unfolded = F.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
        # (batch, groups * in, positions) -> (batch, groups, positions, in)
        return unfolded.reshape(len(layer_input), self.groups, -1, unfolded.shape[-1]).mT

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        columns, batch = grads.shape[:2]
        return grads.reshape(columns, batch, self.groups, self.out_features, -1).mT


class AffineRule(LayerRule):
    """The scale and shift of BatchNorm (in evaluation), LayerNorm and GroupNorm: one weight per element or channel."""

    @override
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([values[name].flatten(-len(shape)) for name, shape in self.shapes.items()], -1)

    @override
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        values, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + torch.Size(shape).numel()
            values[name] = flat[..., start:stop].reshape(*flat.shape[:-1], *shape)
            start = stop
        return values

    def _normalised(self, layer_input: torch.Tensor) -> torch.Tensor:
        module: Any = self.module
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(layer_input, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(layer_input, module.num_groups, eps=module.eps)
        return F.batch_norm(layer_input, module.running_mean, module.running_var, training=False, eps=module.eps)

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        parts = []
        for name in self.shapes:
            products = grads * self._normalised(layer_input) if name == "weight" else grads
            if isinstance(self.module, nn.LayerNorm):  # (columns, batch, ..., *shape): sum over the positions between
                kept = products.flatten(-len(self.module.normalized_shape))
                summed = kept.reshape(*grads.shape[:2], -1, kept.shape[-1]).sum(2)
            else:  # (columns, batch, channels, ...)
                summed = products.reshape(*grads.shape[:3], -1).sum(-1)
            parts.append(summed)
        return torch.cat(parts, -1).transpose(0, 1)


RULES: dict[type[nn.Module], type[LayerRule]] = {
    nn.Linear: LinearRule,
    nn.Conv2d: Conv2dRule,
    nn.BatchNorm1d: AffineRule,
    nn.BatchNorm2d: AffineRule,
    nn.BatchNorm3d: AffineRule,
    nn.LayerNorm: AffineRule,
    nn.GroupNorm: AffineRule,
}


def supported_layers() -> list[str]:
    """Return the names of the layer types a curvature can be computed for."""
    return [kind.__name__ for kind in RULES]


def rule_for(name: str, module: nn.Module | None, shapes: dict[str, tuple[int, ...]]) -> LayerRule:
    """Return the rule of a layer.

    Parameters
    ----------
    name : str
        The layer's name, for messages.
    module : Module or None
    shapes : dict of str to tuple of int
        Its parameters with a posterior.

    Returns
    -------
    LayerRule

    Raises
    ------
    ModelError
        If the layer is of a type no rule covers.
    """
    for kind, rule in RULES.items():
        if isinstance(module, kind) and set(shapes) <= {"weight", "bias"}:
            return rule(module, shapes)
    held = "no module" if module is None else type(module).__name__
    raise ModelError(
        f"Layer '{name}' ({held}, parameters {', '.join(shapes)}) is of a type whose curvature is not covered; covered "
        f"are {', '.join(supported_layers())}. Leave it without a prior (prior={{'{name}.*': None, '*': ...}}), which "
        "keeps it at its point estimate, or use mean-field VI."
    )
