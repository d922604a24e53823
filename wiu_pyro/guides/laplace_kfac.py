"""KFAC Laplace: a Kronecker-factored Gaussian for each layer, weight and bias in one block.

Ritter et al. (2018), A Scalable Laplace Approximation for Neural Networks. The prior enters exactly, as Q ⊗ I with one
precision per input column, by whitening the input factor; no damping is put on the factors.
"""

from __future__ import annotations

import torch

from wiu_pyro.curvature import DiagonalCurvature, KroneckerFactors, MatrixRule
from wiu_pyro.errors import PriorError
from wiu_pyro.guides.block_normal import AutoBlockNormal, Block, CurvatureRecord
from wiu_pyro.guides.laplace import LaplaceGuide, layer_index
from wiu_pyro.guides.laplace_diagonal import diagonal_block
from wiu_pyro.linalg import KroneckerPrecision
from wiu_pyro.nn import Batches, Layer

__all__ = ["AutoKFACLaplace"]


class AutoKFACLaplace(LaplaceGuide):
    """Laplace approximation with one Kronecker-factored block per Linear and Conv2d layer; others get a diagonal.

    The prior's scale may differ between the input columns of a layer (weight and bias, say), not within one. Parameters
    and errors are those of `LaplaceGuide`.

    Examples
    --------
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=8).eval()
    >>> posterior = AutoKFACLaplace(model).laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> posterior.blocks[0].precision.variance().shape
    torch.Size([15])
    """

    cli_name = "laplace-kfac"
    structure_name = "kfac"

    def _blocks(self, posterior: AutoBlockNormal, batches: Batches) -> tuple[tuple[Block, ...], CurvatureRecord]:
        rules = self._rules()
        curvatures = {
            name: KroneckerFactors(rule) if isinstance(rule, MatrixRule) else DiagonalCurvature(rule)
            for name, rule in rules.items()
        }
        prior_precision = posterior.flat_prior().scale.square().reciprocal()
        columns = {
            layer.name: self._column_precision(posterior, layer, rules[layer.name], prior_precision)
            for layer in self.structure.layers
            if isinstance(rules[layer.name], MatrixRule)
        }
        seen = [0]
        for captured in self._captured(batches, seen, rules):
            for name, curvature in curvatures.items():
                curvature.update(captured.inputs[name], captured.grads[name])
        record = self._record(seen[0])
        blocks = []
        for layer in self.structure.layers:
            curvature = curvatures[layer.name]
            if isinstance(curvature, DiagonalCurvature):
                args = (layer.name, curvature, layer.sites, record, prior_precision)
                blocks.append(diagonal_block(posterior, *args))
                continue
            grad_factor = curvature.grad_factor * record.scale
            precision = KroneckerPrecision(grad_factor, curvature.input_factor, columns[layer.name])
            index = layer_index(posterior, curvature.rule, layer.sites)
            blocks.append(Block((layer.name,), "kfac", precision, index, {layer.name: curvature.rule}))
        return tuple(blocks), record

    def _column_precision(
        self, posterior: AutoBlockNormal, layer: Layer, rule: MatrixRule, prior_precision: torch.Tensor
    ) -> torch.Tensor:
        # the prior precision of each input column, shape (in,)
        rows = prior_precision[layer_index(posterior, rule, layer.sites)].view(-1, rule.in_features)
        if not torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=0.0):
            raise PriorError(
                f"KFAC needs one prior scale per input column of a layer, but in layer '{layer.name}' the prior's "
                "scale differs between output units. Use AutoDiagonalLaplace or AutoFullLaplace, which take any scales."
            )
        return rows[0].clone()
