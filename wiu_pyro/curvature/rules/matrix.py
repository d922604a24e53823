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

__all__ = ["LinearRule", "MatrixRule"]

CACHED_ELEMENTS = 2**19  # of per-sample gradients and what makes them: 2 MB in float32, the cache of a core


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
            return self._summed_squares(layer_input, self.output_grads(grads))
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

    def _summed_squares(self, layer_input: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Square and sum the gradients of a few data at a time: patches, products and squares stay in cache."""
        columns, batch, groups, positions, out = outputs.shape
        if positions * (positions + 1) // 2 <= columns * (positions + 1):  # as many products, or fewer
            return self._paired_squares(layer_input, outputs)
        each = groups * (positions * self.in_features + columns * out * (positions + self.in_features))
        step = max(1, CACHED_ELEMENTS // each)
        total = outputs.new_zeros(groups, out, self.in_features)
        for start in range(0, batch, step):
            rows = slice(start, start + step)
            inputs = self.inputs(layer_input[rows])
            lead = outputs[:, rows].permute(1, 2, 0, 4, 3).flatten(2, 3)  # (batch, groups, columns * out, positions)
            joint = (lead @ inputs).unflatten(2, (columns, out))  # (batch, groups, columns, out, in)
            total += joint.square_().sum((0, 2))
        return total.flatten()

    def _paired_squares(self, layer_input: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Sum (Σ_t g_cto a_ti)² as Σ_ts (Σ_c g_cto g_cso) a_ti a_si: one matrix product over data and pairs t ≤ s."""
        columns, batch, groups, positions, out = outputs.shape
        first, second = torch.triu_indices(positions, positions, device=outputs.device)
        twice = 2.0 - (first == second).to(outputs.dtype)  # the pair s, t as well
        step = max(1, CACHED_ELEMENTS // (groups * len(first) * (self.in_features + 2 * out)))
        total = outputs.new_zeros(groups, out, self.in_features)
        for start in range(0, batch, step):
            rows = slice(start, start + step)
            own, inputs = outputs[:, rows].transpose(0, 2), self.inputs(layer_input[rows]).transpose(0, 1)
            # (groups, batch, columns, positions, out), (groups, batch, positions, in)
            products = own.new_zeros(groups, own.shape[1], len(first), out)
            for column in own.unbind(2):
                products.addcmul_(column[:, :, first], column[:, :, second])
            products *= twice[:, None]
            pairs = inputs[:, :, first] * inputs[:, :, second]
            total += products.flatten(1, 2).mT @ pairs.flatten(1, 2)
        return total.flatten()


class LinearRule(MatrixRule):
    """`torch.nn.Linear`, on vectors or on each position of a sequence."""

    @override
    def patches(self, layer_input: torch.Tensor) -> torch.Tensor:
        return layer_input.reshape(len(layer_input), 1, -1, layer_input.shape[-1])

    @override
    def output_grads(self, grads: torch.Tensor) -> torch.Tensor:
        return grads.reshape(*grads.shape[:2], 1, -1, grads.shape[-1])
