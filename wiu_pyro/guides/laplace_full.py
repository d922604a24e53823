"""Full Laplace: one Gaussian over all weights of a small network, from the whole GGN or Hessian."""

from __future__ import annotations

import torch
from typing_extensions import override

from wiu_pyro.curvature import CURVATURE_KINDS, FullCurvature, bytes_in_words, hessian
from wiu_pyro.errors import CostError, CurvatureError
from wiu_pyro.guides.block_normal import AutoBlockNormal, Block, CurvatureRecord
from wiu_pyro.guides.laplace import LaplaceGuide, layer_index
from wiu_pyro.linalg import DensePrecision
from wiu_pyro.nn import Batches, run_at

__all__ = ["AutoFullLaplace"]


class AutoFullLaplace(LaplaceGuide):
    """Laplace approximation with a full precision matrix, for networks of up to about ten thousand weights.

    ``curvature="hessian"`` takes the exact Hessian and any layer; where it is not positive definite at the point
    estimate, the error says so. Other parameters and errors are those of `LaplaceGuide`.

    Parameters
    ----------
    model : callable
        A Pyro model whose weights have Normal priors.
    **options
        As for `LaplaceGuide`; `max_bytes` bounds the float64 matrices (precision, factor, covariance).
    """

    cli_name = "laplace-full"
    structure_name = "full"
    curvature_kinds = (*CURVATURE_KINDS, "hessian")

    def _blocks(self, posterior: AutoBlockNormal, batches: Batches) -> tuple[tuple[Block, ...], CurvatureRecord]:
        self.refuse_cost(posterior.latent_dim)
        prior_precision = posterior.flat_prior().scale.double().square().reciprocal()
        if self.curvature_kind == "hessian":
            matrix, seen = self._hessian(posterior, batches)
            rules, index = {}, torch.arange(posterior.latent_dim, device=posterior.loc.device)
        else:
            rules = self._rules()
            full, counter = FullCurvature(rules), [0]
            for captured in self._captured(batches, counter, rules):
                full.update(captured)
            matrix, seen = full.matrix, counter[0]
            layers = self.structure.layers
            index = torch.cat([layer_index(posterior, rules[layer.name], layer.sites) for layer in layers])
        record = self._record(seen)
        matrix = matrix * record.scale
        try:
            precision = DensePrecision(matrix, prior_precision[index], dtype=posterior.loc.dtype)
        except CurvatureError as error:
            raise CurvatureError(f"{error} (The gradient's norm is {self._gradient_norm(batches):.2g}.)") from None
        names = tuple(layer.name for layer in self.structure.layers)
        return (Block(names, "full", precision, index, rules),), record

    @override
    def refuse_cost(self, num_weights: int) -> None:
        needed = 3 * 8 * num_weights**2
        if needed > self.max_bytes():
            raise CostError(
                f"A full Laplace approximation of {num_weights:,} weights needs {bytes_in_words(needed)}, more than "
                f"the {bytes_in_words(self.max_bytes())} it may take. Use AutoKFACLaplace, or raise max_bytes."
            )

    def _hessian(self, posterior: AutoBlockNormal, batches: Batches) -> tuple[torch.Tensor, int]:
        point = self.point_estimate()
        weights = {name: point[name].clone().requires_grad_() for name, *_ in posterior.sites()}
        fixed = {name: point[name] for name in posterior.point_sites}
        seen = 0

        def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
            nonlocal seen
            seen += len(batch[0])
            trace, _ = run_at(self.model, {**weights, **fixed}, batch)
            node = trace.nodes[self.structure.observed]
            return -node["fn"].log_prob(node["value"]).sum()

        return hessian(loss, batches, weights), seen

    def _gradient_norm(self, batches: Batches) -> float:
        total = torch.zeros_like(self.loc)
        count = 0
        for batch in batches:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.negative_elbo(*batch), [self.loc])
            total, count = total + gradient * len(batch[0]), count + len(batch[0])
        return (total / count).norm().item()
