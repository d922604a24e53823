"""Layers that multiply patches of their input by a matrix: for a datum the Jacobian is Σ_t g_t a_t'.

t runs over the positions at which the weights are used: one for a Linear layer on vectors, all pixels for a
convolution. The bias is one more column, whose input is 1, so weight and bias share one block (Grosse and Martens 2016,
section 3).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import nn
from typing_extensions import override

from wiu_pyro.curvature.rules.base import LayerRule
from wiu_pyro.curvature.rules.squares import summed_squares

__all__ = ["LinearRule", "MatrixRule"]


class MatrixRule(LayerRule):
    """A layer that multiplies patches of its input by a matrix of shape (groups, out, in [+ 1])."""

    def __init__(self, module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(module, shapes)
        self.groups = int(getattr(module, "groups", 1))
        out = self._num_outputs()
        self.out_features = out // self.groups
        self.in_features = self.numel // out

    def _num_outputs(self) -> int:
        return next(iter(self.shapes.values()))[0]  # not module.weight: a PyroSample would draw

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

    def project(self, layer_input: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the joint matrix times a matrix of each group.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        matrix : Tensor, shape (groups, in [+ 1], k)

        Returns
        -------
        Tensor, shape (batch, groups, positions, k)
        """
        return self.inputs(layer_input) @ (matrix[0] if self.groups == 1 else matrix)

    @override
    def join(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        parts = []
        for name in ("weight", "bias"):
            if name in self.shapes:
                parts.append(self._to_matrix(name, values[name]))
        return torch.cat(parts, -1).flatten(-3)

    @override
    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        lead = flat.shape[:-1]
        matrix = flat.reshape(*lead, self.groups, self.out_features, self.in_features)
        values = {}
        if "weight" in self.shapes:
            weight = matrix[..., :-1] if "bias" in self.shapes else matrix
            values["weight"] = self._from_matrix(weight)
        if "bias" in self.shapes:
            values["bias"] = matrix[..., -1].reshape(*lead, *self.shapes["bias"])
        return values

    def _to_matrix(self, name: str, value: torch.Tensor) -> torch.Tensor:
        # (..., *shape) -> (..., groups, out, in), in = 1 for a bias
        lead = value.shape[: value.dim() - len(self.shapes[name])]
        return value.reshape(*lead, self.groups, self.out_features, -1)

    def _from_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.reshape(*weight.shape[:-3], *self.shapes["weight"])

    @override
    def jacobian(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        joint = torch.einsum("kngto,ngti->nkgoi", self.output_grads(grads), self.inputs(layer_input))
        return joint.flatten(-3)

    @override
    def squared_sum(self, layer_input: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        squares = self.output_squares(grads)
        if squares is None:
            outputs = self.output_grads(grads)
            return summed_squares(lambda rows: self.inputs(layer_input[rows]), self.in_features, outputs).flatten()
        return self.squared_products(layer_input, squares)

    def output_squares(self, grads: torch.Tensor) -> torch.Tensor | None:
        """Return the squares of the gradients at the outputs, summed over columns.

        Parameters
        ----------
        grads : Tensor, shape (columns, batch, *output_shape)

        Returns
        -------
        Tensor, shape (batch, groups, out), or None
            None where the weights serve several positions of a datum: their gradient is no outer product then.
        """
        outputs = self.output_grads(grads)  # (columns, batch, groups, positions, out)
        if outputs.shape[3] > 1:
            return None
        squares = outputs[0].square()
        for column in outputs[1:]:
            squares.addcmul_(column, column)
        return squares[:, :, 0]

    def squared_products(self, layer_input: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """Return the squared per-sample gradients, summed over the batch, where the weights serve one position.

        Parameters
        ----------
        layer_input : Tensor, shape (batch, *input_shape)
        squares : Tensor, shape (batch, groups, out)
            Of the gradients at the outputs, summed over columns.

        Returns
        -------
        Tensor, shape (numel,)
        """
        squares = squares.transpose(0, 1)  # (groups, batch, out)
        if "weight" not in self.shapes:
            return squares.sum(1).reshape(-1)
        patches = self.patches(layer_input)[:, :, 0].square().transpose(0, 1)  # (groups, batch, in)
        total = squares.mT @ patches
        return (torch.cat([total, squares.sum(1)[..., None]], -1) if "bias" in self.shapes else total).reshape(-1)


class LinearRule(MatrixRule):
    """`torch.nn.Linear`, on vectors or on each position of a sequence."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        return layer_input.reshape(len(layer_input), 1, -1, layer_input.shape[-1])

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        return grads.reshape(*grads.shape[:2], 1, -1, grads.shape[-1])
