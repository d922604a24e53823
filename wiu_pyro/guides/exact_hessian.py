"""The exact Hessian of a Laplace guide's negative log-likelihood, with respect to some of its sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from pyro.distributions.util import scale_and_mask

from wiu_pyro.curvature import HessianSum
from wiu_pyro.errors import CurvatureError
from wiu_pyro.guides.block_normal import CurvatureRecord
from wiu_pyro.guides.captured import curvature_record
from wiu_pyro.guides.data_pass import DataPass
from wiu_pyro.linalg import DensePrecision
from wiu_pyro.nn import run_at

if TYPE_CHECKING:
    from wiu_pyro.guides.laplace import LaplaceGuide

__all__ = ["curvature_precision", "hessian_of_sites"]

Batch = tuple[torch.Tensor, ...]


def hessian_of_sites(guide: LaplaceGuide, sites: Sequence[str], data: DataPass) -> tuple[torch.Tensor, CurvatureRecord]:
    """Return the Hessian of −log likelihood, summed over the data, at the guide's point estimate.

    Parameters
    ----------
    guide : LaplaceGuide
    sites : sequence of str
        With respect to these, in this order; all other sites are fixed.
    data : DataPass

    Returns
    -------
    matrix : Tensor, shape (numel, numel)
        Float64.
    record : CurvatureRecord
    """
    point = guide.point_estimate()
    weights = {name: point[name].clone().requires_grad_() for name in sites}
    totals = data.totals()

    def loss(batch: Batch) -> torch.Tensor:
        trace, _ = run_at(guide.model, {**point, **weights}, batch)
        node = trace.nodes[guide.structure.observed]
        log_likelihood = scale_and_mask(node["fn"].log_prob(node["value"]), mask=node["mask"]).sum()
        totals.add(len(batch[0]), log_likelihood if len(batch) > 1 else None)
        return -log_likelihood

    total = HessianSum(loss, weights)
    data.go_over({", ".join(sites): total}, lambda batches, numbers: batches, totals)
    return total.matrix, curvature_record(guide, totals, data)


def curvature_precision(
    guide: LaplaceGuide, matrix: torch.Tensor, prior_precision: torch.Tensor, *, data: DataPass, name: str = ""
) -> DensePrecision:
    """Return curvature plus prior as a precision.

    Parameters
    ----------
    guide : LaplaceGuide
    matrix : Tensor, shape (numel, numel)
    prior_precision : Tensor, shape (numel,)
    data : DataPass
    name : str
        The layer, for messages; all of them when empty.

    Returns
    -------
    DensePrecision

    Raises
    ------
    CurvatureError
        If it is not positive definite; says the gradient's norm, by which to judge whether training had ended.
    """
    try:
        return DensePrecision(matrix, prior_precision, dtype=guide.loc.dtype)
    except CurvatureError as error:
        layer = f"Layer '{name}': " if name else _most_negative(guide, matrix, prior_precision)
        norm = _gradient_norm(guide, data)
        raise CurvatureError(f"{layer}{error} (The gradient's norm is {norm:.2g}.)") from None


def _most_negative(guide: LaplaceGuide, matrix: torch.Tensor, prior_precision: torch.Tensor) -> str:
    """Name the layer that has the largest part in the direction of most negative curvature, if that can be seen."""
    layers = {layer.name: layer.num_weights for layer in guide.structure.layers}
    layers = {name: layers[name] for name in guide.covered_layers()}
    if sum(layers.values()) != len(matrix) or not torch.isfinite(matrix).all():
        return ""
    _, directions = torch.linalg.eigh(matrix.double() + prior_precision.double().diag())
    parts = directions[:, 0].square().split(list(layers.values()))
    shares = {name: part.sum().item() for name, part in zip(layers, parts, strict=True)}
    worst = max(shares, key=lambda name: shares[name])
    return f"Layer '{worst}' has {shares[worst]:.0%} of the most negative direction: "


def _gradient_norm(guide: LaplaceGuide, data: DataPass) -> float:
    total = torch.zeros_like(guide.loc)
    count = 0
    for batch in data:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(guide.negative_elbo(*batch), [guide.loc])
        total, count = total + gradient * len(batch[0]), count + len(batch[0])
    return (total / count).norm().item()
