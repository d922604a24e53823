"""Full Laplace: one Gaussian over all weights of a small network, or of some layers, from the whole GGN or Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from typing_extensions import override

from wiu_pyro.curvature import CURVATURE_KINDS, FullCurvature
from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.captured import fill_parts
from wiu_pyro.guides.cost import LayerCost, full_cost
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.guides.exact_hessian import curvature_precision, hessian_of_sites
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.laplace_layers import matching_layers

__all__ = ["AutoFullLaplace"]


class AutoFullLaplace(LaplaceGuide):
    """Laplace approximation with a full precision matrix, for networks of up to about ten thousand weights.

    ``curvature="hessian"`` takes the exact Hessian and any layer; where it is not positive definite at the point
    estimate, the error says so. Other errors are those of `LaplaceGuide`.

    Parameters
    ----------
    model : callable
        A Pyro model whose weights have Normal priors.
    layers : str or sequence of str
        Names or patterns of the layers that get the joint posterior, as ``"fc*"``; the others stay at their point
        estimate.
    **options
        As for `LaplaceGuide`; `max_bytes` bounds the float64 matrices (precision, factor, covariance).
    """

    cli_name = "laplace-full"
    structure_name = "full"
    curvature_kinds = (*CURVATURE_KINDS, "hessian")

    def __init__(self, model: Callable[..., Any], *, layers: str | Sequence[str] = "*", **options: Any) -> None:
        super().__init__(model, **options)
        self.asked_layers = (layers,) if isinstance(layers, str) else tuple(layers)

    @override
    def covered_layers(self) -> tuple[str, ...]:
        return matching_layers(self.asked_layers, self.structure)

    def _blocks(self, posterior: AutoBlockNormal, data: DataPass) -> tuple[tuple[Block, ...], CurvatureRecord]:
        self.refuse_cost()
        prior_precision = posterior.flat_prior().scale.double().square().reciprocal()
        names, rules = self.covered_layers(), self.layer_rules()
        sites = self.structure.layer_sites
        index = torch.cat([posterior.layer_index(rule, sites[name]) for name, rule in rules.items()])
        if self.curvature_kind == "hessian":
            matrix, record = hessian_of_sites(self, [name for name, *_ in posterior.sites()], data)
            matrix = matrix[index][:, index]  # in the order of the rules
        else:
            full = FullCurvature(rules)
            record = fill_parts(self, {"all layers": full}, rules=rules, data=data)
            matrix = full.matrix
        precision = curvature_precision(self, matrix * record.scale, prior_precision[index], data=data)
        return (Block(names, "full", precision, index, rules if self._shows_jacobians else {}),), record

    @override
    def planned_blocks(self) -> tuple[LayerCost, ...]:
        covered = self.covered_layers()
        total = sum(layer.num_weights for layer in self.structure.layers if layer.name in covered)
        return (full_cost("all layers", total),)

    @override
    def what_fits(self, block: str) -> str:
        return "Use AutoKFACLaplace, or raise max_bytes."
