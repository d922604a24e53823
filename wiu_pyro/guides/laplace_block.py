"""Block-diagonal Laplace: the whole curvature within each layer, nothing between layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import override

from wiu_pyro.curvature import CURVATURE_KINDS
from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.guides.exact_hessian import curvature_precision, hessian_of_sites
from wiu_pyro.guides.laplace_layers import AutoLaplace

__all__ = ["AutoBlockDiagonalLaplace"]


class AutoBlockDiagonalLaplace(AutoLaplace):
    """Laplace approximation with one full precision matrix per layer, for layers of up to a few thousand weights.

    What KFAC approximates. ``curvature="hessian"`` takes the layers' own blocks of the exact Hessian, one pass over the
    data for each layer, and any kind of layer. Parameters and errors are those of `LaplaceGuide`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> model = BayesianNetwork(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), num_data=8).eval()
    >>> posterior = AutoBlockDiagonalLaplace(model).laplace_approximation(torch.ones(8, 4), torch.zeros(8).long())
    >>> [block.precision.numel for block in posterior.blocks]
    [25, 18]
    """

    cli_name = "laplace-block"
    structure_name = "block"
    curvature_kinds = (*CURVATURE_KINDS, "hessian")

    def __init__(self, model: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, structure="full", **options)

    @override
    def _blocks(self, posterior: AutoBlockNormal, data: DataPass) -> tuple[tuple[Block, ...], CurvatureRecord]:
        if self.curvature_kind != "hessian":
            return super()._blocks(posterior, data)
        self.refuse_cost()
        rules = self.layer_rules()
        prior_precision = posterior.flat_prior().scale.double().square().reciprocal()
        blocks = []
        for layer in self.structure.layers:
            rule = rules[layer.name]
            matrix, record = hessian_of_sites(self, list(layer.sites.values()), data)
            starts = itertools.accumulate((torch.Size(layer.shapes[key]).numel() for key in layer.sites), initial=0)
            order = {
                key: torch.arange(start, start + torch.Size(layer.shapes[key]).numel()).view(layer.shapes[key])
                for key, start in zip(layer.sites, starts, strict=False)
            }
            places = rule.join(order).to(matrix.device)  # in the order of the rule
            index = posterior.layer_index(rule, layer.sites)
            precision = curvature_precision(
                self, matrix[places][:, places] * record.scale, prior_precision[index], data=data, name=layer.name
            )
            shown = {layer.name: rule} if self._shows_jacobians else {}
            blocks.append(Block((layer.name,), "full", precision, index, shown))
        return tuple(blocks), record
