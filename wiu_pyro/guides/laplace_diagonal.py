"""Diagonal Laplace: an independent Normal for each weight, from the exact diagonal of the curvature."""

from __future__ import annotations

import torch

from wiu_pyro.curvature import DiagonalCurvature
from wiu_pyro.guides.block_normal import AutoBlockNormal, Block, CurvatureRecord
from wiu_pyro.guides.laplace import LaplaceGuide, layer_index
from wiu_pyro.linalg import DiagonalPrecision
from wiu_pyro.nn import Batches

__all__ = ["AutoDiagonalLaplace"]


class AutoDiagonalLaplace(LaplaceGuide):
    """Laplace approximation with a diagonal precision: the posterior sd is the conditional one of each weight.

    Takes a Normal prior of any scales. Parameters and errors are those of `LaplaceGuide`.
    """

    cli_name = "laplace-diag"
    structure_name = "diagonal"

    def _blocks(self, posterior: AutoBlockNormal, batches: Batches) -> tuple[tuple[Block, ...], CurvatureRecord]:
        rules = self._rules()
        diagonals = {name: DiagonalCurvature(rule) for name, rule in rules.items()}
        seen = [0]
        for captured in self._captured(batches, seen, rules):
            for name, diagonal in diagonals.items():
                diagonal.update(captured.inputs[name], captured.grads[name])
        record = self._record(seen[0])
        prior_precision = posterior.flat_prior().scale.square().reciprocal()
        blocks = [
            diagonal_block(posterior, layer.name, diagonals[layer.name], layer.sites, record, prior_precision)
            for layer in self.structure.layers
        ]
        return tuple(blocks), record


def diagonal_block(
    posterior: AutoBlockNormal,
    layer: str,
    curvature: DiagonalCurvature,
    sites: dict[str, str],
    record: CurvatureRecord,
    prior_precision: torch.Tensor,
) -> Block:
    """Return one layer's block from its curvature's diagonal and the prior precision of the flat vector."""
    index = layer_index(posterior, curvature.rule, sites)
    precision = DiagonalPrecision(curvature.diagonal * record.scale + prior_precision[index])
    return Block((layer,), "diagonal", precision, index, {layer: curvature.rule})
