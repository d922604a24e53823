"""The Gaussian over a network's outputs that a linearised network with Gaussian weights has.

f(w) ≈ f(w*) + J (w − w*), so the outputs of one datum have covariance J Λ⁻¹ J' (MacKay 1992; Immer et al. 2021).
Where a layer's weights are used at one position, J is an outer product of an output gradient g and an input a, and in
the eigenbasis of the Kronecker factors the covariance needs no Jacobian: Σ_o g̃_co g̃_do Σ_i ã_i² / (1 + λ_oi).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from wiu_pyro.curvature import (
    CapturedBatch,
    CurvaturePass,
    DirectRule,
    LayerRule,
    MatrixRule,
    OutputLikelihood,
    direct_layers,
    read,
)
from wiu_pyro.curvature.rules import MAX_ELEMENTS
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoBlockNormal
from wiu_pyro.guides.block_normal import Block
from wiu_pyro.linalg import DiagonalPrecision, KroneckerPrecision, Precision
from wiu_pyro.nn import Batches, run_at

__all__ = ["FunctionalBatch", "functional_distribution"]


@dataclass(frozen=True)
class FunctionalBatch:
    """Outputs of a linearised network for one batch.

    Attributes
    ----------
    batch : tuple of Tensor
    likelihood : OutputLikelihood
    mean : Tensor, shape (batch, outputs)
        The network's own output at the point estimate: logits, or means.
    covariance : Tensor, shape (batch, outputs, outputs)
    """

    batch: tuple[torch.Tensor, ...]
    likelihood: OutputLikelihood
    mean: torch.Tensor
    covariance: torch.Tensor


def functional_distribution(
    model: Callable[..., Any], guide: AutoBlockNormal, batches: Batches
) -> Iterator[FunctionalBatch]:
    """Yield mean and covariance of the outputs, batch by batch.

    Parameters
    ----------
    model : callable
        The Pyro model.
    guide : AutoBlockNormal
        What `laplace_approximation` returned.
    batches : Batches

    Yields
    ------
    FunctionalBatch

    Raises
    ------
    GuideError
        If the guide keeps no Jacobians (a full Hessian), or is none of a Laplace approximation.
    """
    if not isinstance(guide, AutoBlockNormal) or not all(block.rules for block in guide.blocks):
        raise GuideError(
            "A linearised predictive needs the guide of a Laplace approximation whose layers are all covered, but "
            f"this is {getattr(guide, 'source_name', type(guide).__name__)}"
            f" ({getattr(guide.curvature, 'kind', '') if isinstance(guide, AutoBlockNormal) else 'no Laplace guide'}). "
            'Use kind="sampled".'
        )
    weights = {name: value.clone().requires_grad_() for name, value in guide.unpack(guide.loc).items()}
    everything = {**weights, **guide.point_values}
    outputs: list[torch.Tensor] = []
    own = False  # whether `outputs` are the network's own, of the last batch

    def run(batch: tuple[torch.Tensor, ...], values: Mapping[str, torch.Tensor]) -> tuple[OutputLikelihood, Any]:
        trace, returned = run_at(model, values, batch)
        return read(trace.nodes[guide.structure.observed]["fn"]), returned

    def forward(batch: tuple[torch.Tensor, ...]) -> OutputLikelihood:
        nonlocal own
        likelihood, returned = run(batch, everything)
        output = _own_output(likelihood, returned)
        own, likelihood.output = output is not likelihood.output, output
        outputs.append(likelihood.output)
        return likelihood

    def at_weights(batch: tuple[torch.Tensor, ...], values: Mapping[str, torch.Tensor]) -> OutputLikelihood:
        likelihood, returned = run(batch, values)
        if own:
            likelihood.output = returned.reshape(likelihood.output.shape)
        return likelihood

    def unit_columns(likelihood: OutputLikelihood, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        num_outputs = likelihood.output.shape[-1]
        eye = torch.eye(num_outputs, dtype=likelihood.output.dtype, device=likelihood.output.device)
        return eye[:, None, :].expand(-1, len(likelihood.output), -1)

    rules = {name: rule for block in guide.blocks for name, rule in block.rules.items()}
    modules = {name: rule.module for name, rule in rules.items() if not isinstance(rule, DirectRule)}
    direct = direct_layers(at_weights, everything, rules=rules, sites=guide.structure.layer_sites)
    seen: list[tuple[torch.Tensor, ...]] = []

    def kept() -> Iterator[tuple[torch.Tensor, ...]]:
        for batch in batches:
            seen.append(batch)
            yield batch

    for captured in CurvaturePass(forward, modules, direct).run(kept(), unit_columns):
        with torch.no_grad():
            covariance = sum(_block_covariance(block, captured) for block in guide.blocks)
            yield FunctionalBatch(seen.pop(), captured.likelihood, outputs.pop().detach(), covariance)


def _own_output(likelihood: OutputLikelihood, returned: Any) -> torch.Tensor:
    """Return the network's own output where the model returned it, else the likelihood's natural parameter."""
    # logits differ from the natural parameter by a constant for each datum: another covariance, the same probabilities
    natural = likelihood.output
    if not isinstance(returned, torch.Tensor) or returned.numel() != natural.numel() or not returned.requires_grad:
        return natural
    output = returned.reshape(natural.shape)
    shown = torch.log_softmax(output, -1) if likelihood.kind == "categorical" else output
    return output if torch.allclose(shown, natural, atol=1e-5, rtol=1e-4) else natural


def _block_covariance(block: Block, captured: CapturedBatch) -> torch.Tensor:
    """Return what one block adds to the covariance of the outputs, shape (batch, outputs, outputs)."""
    if len(block.layers) == 1:
        name = block.layers[0]
        rule, layer_input, grads = block.rules[name], captured.inputs[name], captured.grads[name]
        if isinstance(rule, MatrixRule) and isinstance(block.precision, KroneckerPrecision | DiagonalPrecision):
            inputs = rule.inputs(layer_input)
            if inputs.shape[2] == 1:
                return _outer_covariance(block.precision, rule, inputs[:, :, 0], rule.output_grads(grads)[:, :, :, 0])
    return _jacobian_covariance(block.rules, block.precision, captured)


def _outer_covariance(
    precision: Precision, rule: MatrixRule, inputs: torch.Tensor, grads: torch.Tensor
) -> torch.Tensor:
    """Return the covariance where the Jacobian is an outer product.

    Parameters
    ----------
    precision : KroneckerPrecision or DiagonalPrecision
    rule : MatrixRule
    inputs : Tensor, shape (batch, groups, in)
    grads : Tensor, shape (outputs, batch, groups, out)

    Returns
    -------
    Tensor, shape (batch, outputs, outputs)
    """
    if isinstance(precision, KroneckerPrecision):
        table = precision.inverse  # (groups, out, in)
        inputs = torch.einsum("ngi,gij->ngj", inputs * precision.whitener, precision.in_basis)
        grads = torch.einsum("cngo,gop->cngp", grads, precision.out_basis)
    else:
        table = precision.variance().view(rule.groups, rule.out_features, rule.in_features)
    spread = torch.einsum("ngi,goi->ngo", inputs.square(), table)
    return torch.einsum("cngo,dngo,ngo->ncd", grads, grads, spread)


def _jacobian_covariance(rules: dict[str, LayerRule], precision: Precision, captured: CapturedBatch) -> torch.Tensor:
    size = len(next(iter(captured.inputs.values())))
    columns = next(iter(captured.grads.values())).shape[0]
    step = max(1, MAX_ELEMENTS // (columns * precision.numel))
    parts = []
    for start in range(0, size, step):
        rows = slice(start, start + step)
        jacobians = [
            rule.jacobian(captured.inputs[name][rows], captured.grads[name][:, rows]) for name, rule in rules.items()
        ]
        parts.append(precision.covariance_of(torch.cat(jacobians, -1)))
    return torch.cat(parts)
