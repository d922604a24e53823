"""What each block of a Gaussian posterior over the weights adds to the covariance of a network's outputs.

For a datum, the Jacobian of a layer that multiplies patches a_t by a matrix is Σ_t g_t a_t', with output gradients g_t.
In the eigenbasis of a Kronecker-factored posterior it is Σ_t (U' g_t) (V' a_t)', and the covariance a sum of products
of its entries, each times the variance of that coordinate of the weights: a table, not a matrix. With one position the
Jacobian is an outer product and need not be formed: Σ_o g̃_co g̃_do Σ_i ã_i² / (1 + λ_oi). With few positions neither
is it, but the same sum for each pair of them, Σ_ts Σ_o g̃_cto g̃_dso Σ_i ã_ti ã_si / (1 + λ_oi). Nor need it be where
the posterior is dense: Σ_op g_co g_dp (a' Σ_op a), with the covariance Σ_op of the weights to two outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from wiu_pyro.curvature import CapturedBatch, MatrixRule
from wiu_pyro.curvature.rules import MAX_ELEMENTS
from wiu_pyro.guides.blocks import Block
from wiu_pyro.linalg import DensePrecision, DiagonalPrecision, EigenbasisPrecision

__all__ = ["BlockCovariance", "block_covariance"]

BlockCovariance = Callable[[CapturedBatch], torch.Tensor]


def block_covariance(block: Block) -> BlockCovariance:
    """Return what maps a batch to the covariance that a block gives its outputs, shape (batch, outputs, outputs).

    Parameters
    ----------
    block : Block
        With the rules of all its layers.

    Returns
    -------
    callable
        A table of variances in a basis where the block has one, per-sample Jacobians otherwise.
    """
    if len(block.rules) == 1 and block.entries is None:
        (rule,) = block.rules.values()
        if isinstance(rule, MatrixRule) and isinstance(block.precision, EigenbasisPrecision | DiagonalPrecision):
            return _TableCovariance(*block.rules, rule, block.precision)
        if isinstance(rule, MatrixRule) and isinstance(block.precision, DensePrecision) and rule.groups == 1:
            return _DenseCovariance(block, rule, block.precision)
    return _JacobianCovariance(block)


class _JacobianCovariance:
    """J Λ⁻¹ J' with the Jacobians of all layers of a block, some data at a time."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __call__(self, captured: CapturedBatch) -> torch.Tensor:
        rules, precision = self.block.rules, self.block.precision
        columns, size = next(iter(captured.grads[name] for name in rules)).shape[:2]
        numel = sum(rule.numel for rule in rules.values())
        step = max(1, MAX_ELEMENTS // (columns * numel))
        parts = []
        for start in range(0, size, step):
            rows = slice(start, start + step)
            jacobians = [
                rule.jacobian(captured.inputs[name][rows], captured.grads[name][:, rows])
                for name, rule in rules.items()
            ]
            joined = jacobians[0] if len(jacobians) == 1 else torch.cat(jacobians, -1)
            if self.block.entries is not None:
                joined = joined[..., self.block.entries]
            parts.append(precision.covariance_of(joined))
        return torch.cat(parts)


class _DenseCovariance:
    """A matrix layer whose weights all have covariances: by the layer's inputs where the weights are used once."""

    def __init__(self, block: Block, rule: MatrixRule, precision: DensePrecision) -> None:
        (self.name,) = block.rules
        self.rule, self.otherwise = rule, _JacobianCovariance(block)
        out, width = rule.out_features, rule.in_features
        self.rows, self.columns = torch.triu_indices(out, out, device=precision.covariance.device)  # pairs of outputs
        between = precision.covariance.view(out, width, out, width)
        # (in, pairs * in)
        self.between = between[self.rows, :, self.columns].transpose(0, 1).reshape(width, -1)

    def __call__(self, captured: CapturedBatch) -> torch.Tensor:
        layer_input, grads = captured.inputs[self.name], captured.grads[self.name]
        outputs = self.rule.output_grads(grads)  # (columns, batch, groups, positions, out)
        if outputs.shape[3] != 1:
            return self.otherwise(captured)
        inputs = self.rule.inputs(layer_input)[:, 0, 0].to(self.between)  # (batch, in)
        step = max(1, MAX_ELEMENTS // self.between.shape[1])
        pairs = torch.cat([self._pairs(inputs[start : start + step]) for start in range(0, len(inputs), step)])
        out = self.rule.out_features
        each = pairs.new_empty(len(inputs), out, out)  # covariance of the layer's own outputs
        each[:, self.rows, self.columns] = pairs
        each[:, self.columns, self.rows] = pairs
        own = outputs[:, :, 0, 0].transpose(0, 1).to(each)  # (batch, columns, out)
        return (own @ each @ own.mT).to(grads.dtype)

    def _pairs(self, inputs: torch.Tensor) -> torch.Tensor:
        times = (inputs @ self.between).view(len(inputs), -1, inputs.shape[1])
        return (times @ inputs[:, :, None])[..., 0]


class _TableCovariance:
    """A matrix layer whose posterior is diagonal, in the weights' own basis or in a Kronecker eigenbasis."""

    def __init__(self, name: str, rule: MatrixRule, precision: EigenbasisPrecision | DiagonalPrecision) -> None:
        self.name, self.rule = name, rule
        self.in_basis: torch.Tensor | None = None
        self.out_basis: torch.Tensor | None = None
        if isinstance(precision, EigenbasisPrecision):
            self.in_basis = precision.whitener[:, None] * precision.in_basis  # (groups, in, in)
            self.out_basis = precision.out_basis  # (groups, out, out)
            self.table = precision.inverse  # (groups, out, in)
        else:
            self.table = precision.variance().view(rule.groups, rule.out_features, rule.in_features)
        self.root = self.table.sqrt()

    def __call__(self, captured: CapturedBatch) -> torch.Tensor:
        layer_input, grads = captured.inputs[self.name], captured.grads[self.name]
        outputs = self.rule.output_grads(grads)  # (columns, batch, groups, positions, out)
        if outputs.shape[3] == 1:
            return self._outer(layer_input, outputs[:, :, :, 0])
        columns, _, groups, positions = outputs.shape[:4]
        if positions * (positions + 1) // 2 <= columns * (positions + 1):  # as many products, or fewer
            return self._by_pairs(layer_input, outputs)
        step = max(1, MAX_ELEMENTS // (columns * max(self.rule.numel, groups * outputs[0, 0, 0].numel())))
        starts = range(0, len(layer_input), step)
        return torch.cat([self._summed(layer_input[i : i + step], outputs[:, i : i + step]) for i in starts])

    def _inputs(self, layer_input: torch.Tensor) -> torch.Tensor:
        # (batch, groups, positions, in), in the basis
        return self.rule.inputs(layer_input) if self.in_basis is None else self.rule.project(layer_input, self.in_basis)

    def _outer(self, layer_input: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Return the covariance where the weights are used once, outputs (columns, batch, groups, out)."""
        if self.out_basis is not None:
            outputs = _times(outputs, self.out_basis)
        squares = self._inputs(layer_input)[:, :, 0].square()  # (batch, groups, in)
        spread = _times(squares, self.table.mT)  # (batch, groups, out)
        weighted = (outputs * spread.sqrt()).transpose(0, 1).flatten(2)  # (batch, columns, groups * out)
        return weighted @ weighted.mT

    def _by_pairs(self, layer_input: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Return the covariance by pairs of positions, outputs (columns, batch, groups, positions, out)."""
        if self.out_basis is not None:
            outputs = _times(outputs.transpose(2, 3), self.out_basis).transpose(2, 3)
        first, second = torch.triu_indices(outputs.shape[3], outputs.shape[3], device=outputs.device)
        held = len(first) * self.rule.groups * (self.rule.in_features + self.rule.out_features)
        step, found = max(1, MAX_ELEMENTS // held), []
        for rows in range(0, len(layer_input), step):
            inputs = self._inputs(layer_input[rows : rows + step]).transpose(1, 2)  # (batch, positions, groups, in)
            spread = _times(inputs[:, first] * inputs[:, second], self.table.mT)  # (batch, pairs, groups, out)
            own = outputs[:, rows : rows + step].permute(1, 2, 4, 0, 3)  # (batch, groups, out, columns, positions)
            between = spread.new_empty(*own.shape[:3], own.shape[4], own.shape[4])
            between[..., first, second] = between[..., second, first] = spread.permute(0, 2, 3, 1)
            left, right = (part.permute(0, 3, 1, 2, 4).flatten(2) for part in (own @ between, own))
            found.append(left @ right.mT)
        covariance = torch.cat(found)
        return 0.5 * (covariance + covariance.mT)

    def _summed(self, layer_input: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Return the covariance by the Jacobian in the basis, outputs (columns, batch, groups, positions, out)."""
        columns, batch, groups, positions, out = outputs.shape
        inputs, basis = self._inputs(layer_input), self.out_basis  # (batch, groups, positions, in)
        if basis is not None and positions < min(out, inputs.shape[-1]):
            outputs, basis = _times(outputs.transpose(2, 3), basis).transpose(2, 3), None
        rows = outputs.permute(1, 2, 0, 4, 3)  # (batch, groups, columns, out, positions)
        if basis is not None and positions < inputs.shape[-1]:
            rows, basis = basis.mT[:, None] @ rows, None
        rows = rows.reshape(batch * groups, columns * out, positions)
        joint = (rows @ inputs.flatten(0, 1)).view(batch, groups, columns, out, -1)
        if basis is not None:  # fewest elements there
            joint = basis.mT[:, None] @ joint
        joint = (joint * self.root[:, None]).transpose(1, 2).reshape(batch, columns, -1)
        return joint @ joint.mT


def _times(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return values (..., groups, n) times a matrix of each group (groups, n, k)."""
    if len(matrix) == 1:
        return values @ matrix[0]
    return torch.einsum("...gn,gnk->...gk", values, matrix)
