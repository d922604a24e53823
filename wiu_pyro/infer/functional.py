"""The Gaussian over a network's outputs that a linearised network with Gaussian weights has.

f(w) ≈ f(w*) + J (w − w*), so the outputs of one datum have covariance J Λ⁻¹ J' (MacKay 1992; Immer et al. 2021), a sum
over the independent blocks of the posterior.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from wiu_pyro.curvature import (
    CapturedBatch,
    CurvaturePass,
    DirectRule,
    NormalOutput,
    OutputLikelihood,
    direct_layers,
    read,
)
from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoBlockNormal
from wiu_pyro.infer.block_covariance import block_covariance
from wiu_pyro.nn import Batches, run_at

__all__ = ["FunctionalBatch", "functional_distribution"]

Batch = tuple[torch.Tensor, ...]

FIRST_ROWS = 8  # data in the first part of a batch, which shows how many elements a datum's gradients have
GRAD_ELEMENTS = {"cpu": 2**23}  # gradients held at once: 32 MB in float32, about a processor's last cache
OTHER_GRAD_ELEMENTS = 2**27  # on other devices


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

    batch: Batch
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
    network = _LinearisedNetwork(model, guide.structure.observed, {**weights, **guide.point_values})
    rules = {name: rule for block in guide.blocks for name, rule in block.rules.items()}
    modules = {name: rule.module for name, rule in rules.items() if not isinstance(rule, DirectRule)}
    direct = direct_layers(network.at_weights, network.weights, rules=rules, sites=guide.structure.layer_sites)
    covariances = [block_covariance(block) for block in guide.blocks]
    parts = _Parts(batches)
    for captured in CurvaturePass(network.forward, modules, direct).run(parts, _unit_columns):
        with torch.no_grad():
            found = torch.stack([covariance(captured) for covariance in covariances]).sum(0)
        whole = parts.add(captured, captured.likelihood.output.detach(), found)
        if whole is not None:
            yield whole


@dataclass
class _LinearisedNetwork:
    """A network whose outputs are its own where the model returns them, else the likelihood's natural parameters."""

    model: Callable[..., Any]
    observed: str  # the site
    weights: Mapping[str, torch.Tensor]
    own: bool = False  # whether the last batch's output is the network's own

    def forward(self, batch: Batch) -> OutputLikelihood:
        """Return the likelihood at the point estimate, on its graph."""
        likelihood, returned = self._run(batch, self.weights)
        output = _own_output(likelihood, returned)
        self.own, likelihood.output = output is not likelihood.output, output
        return likelihood

    def at_weights(self, batch: Batch, weights: Mapping[str, torch.Tensor]) -> OutputLikelihood:
        """Return the likelihood at other weights; its output is what `forward` took for the batch."""
        likelihood, returned = self._run(batch, weights)
        if self.own:
            likelihood.output = returned.reshape(likelihood.output.shape)
        return likelihood

    def _run(self, batch: Batch, weights: Mapping[str, torch.Tensor]) -> tuple[OutputLikelihood, Any]:
        trace, returned = run_at(self.model, weights, batch, hold_parameters=True)
        return read(trace.nodes[self.observed]["fn"]), returned


def _unit_columns(likelihood: OutputLikelihood, batch: Batch) -> torch.Tensor:
    """Return one column for each output, shape (outputs, batch, outputs)."""
    output = likelihood.output
    eye = torch.eye(output.shape[-1], dtype=output.dtype, device=output.device)
    return eye[:, None, :].expand(-1, len(output), -1)


@dataclass
class _Parts:
    """Batches cut into parts of bounded gradients, and what is known of the parts of the present batch."""

    batches: Batches
    rows: int = FIRST_ROWS
    batch: Batch = ()
    kept: list[tuple[OutputLikelihood, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.batch, start = batch, 0
            while start < len(batch[0]):
                stop = start + self.rows  # as known now: `add` changes it after the first part
                yield tuple(part[start:stop] for part in batch)
                start = stop

    def add(self, captured: CapturedBatch, output: torch.Tensor, covariance: torch.Tensor) -> FunctionalBatch | None:
        """Keep a part; return the whole batch once all of it is there."""
        elements = sum(grad[:, :1].numel() for grad in captured.grads.values())
        allowed = GRAD_ELEMENTS.get(output.device.type, OTHER_GRAD_ELEMENTS)
        self.rows = max(FIRST_ROWS, allowed // max(1, elements))
        likelihood = captured.likelihood
        likelihood.output = output  # without the graph
        self.kept.append((likelihood, output, covariance))
        if sum(len(part) for _, part, _ in self.kept) < len(self.batch[0]):
            return None
        likelihoods, means, covariances = zip(*self.kept, strict=True)
        self.kept.clear()
        whole = copy.copy(likelihood)
        whole.output = torch.cat(means)
        if isinstance(whole, NormalOutput):
            whole.noise_scale = torch.cat([part.noise_scale for part in likelihoods])
        return FunctionalBatch(self.batch, whole, whole.output, torch.cat(covariances))


def _own_output(likelihood: OutputLikelihood, returned: Any) -> torch.Tensor:
    """Return the network's own output where the model returned it, else the likelihood's natural parameter."""
    # logits differ from the natural parameter by a constant for each datum: another covariance, the same probabilities
    natural = likelihood.output
    if not isinstance(returned, torch.Tensor) or returned.numel() != natural.numel() or not returned.requires_grad:
        return natural
    output = returned.reshape(natural.shape)
    shown = torch.log_softmax(output, -1) if likelihood.kind == "categorical" else output
    return output if torch.allclose(shown, natural, atol=1e-5, rtol=1e-4) else natural
