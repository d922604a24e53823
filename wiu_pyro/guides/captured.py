"""The passes of a Laplace guide over its data: what batches show of its layers, and what is said afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyro
import torch

from wiu_pyro.curvature import (
    Accumulated,
    CapturedBatch,
    Columns,
    ColumnTruncation,
    CurvaturePass,
    DirectRule,
    HessianColumns,
    KroneckerFactors,
    LayerCurvature,
    LayerRule,
    OutputLikelihood,
    Portions,
    Totals,
    direct_layers,
    read,
)
from wiu_pyro.errors import CurvatureError
from wiu_pyro.guides.averaging import AVERAGED
from wiu_pyro.guides.block_normal import CurvatureRecord
from wiu_pyro.guides.data_pass import DataPass, peak_memory_bytes
from wiu_pyro.nn import run_at
from wiu_pyro.nn.checks import check_batch

if TYPE_CHECKING:
    from wiu_pyro.guides.laplace import LaplaceGuide

__all__ = ["captured_batches", "curvature_record", "fill_parts", "name_zero_layers"]

Batch = tuple[torch.Tensor, ...]


def fill_parts(
    guide: LaplaceGuide, parts: Mapping[str, Accumulated], *, rules: dict[str, LayerRule], data: DataPass
) -> CurvatureRecord:
    """Fill empty curvatures by passes over the data at a guide's point estimate.

    Parameters
    ----------
    guide : LaplaceGuide
    parts : mapping of str to Accumulated
        By layer, or one for several layers together.
    rules : dict of str to LayerRule
        The layers looked at.
    data : DataPass

    Returns
    -------
    CurvatureRecord
        How the curvature was made.
    """
    totals = data.totals()
    tolerance = guide.config.column_tolerance
    truncation = ColumnTruncation(tolerance) if tolerance else None
    portions = Portions.fitting(
        guide.loc.device,
        alone=all(isinstance(part, LayerCurvature) and part.columns_alone for part in parts.values()),
        joined=any(isinstance(part, KroneckerFactors) for part in parts.values()),
        by_data=guide.config.curvature != "fisher_mc",
    )
    totals.sizes = portions.sizes
    show = partial(captured_batches, guide, rules=rules, totals=totals, portions=portions, truncation=truncation)
    data.go_over(parts, show, totals)
    if guide.averaging is not None:
        guide.averaging.blend(parts)
    zeros = [layer for name, part in parts.items() for layer in part.zero_layers(name)]
    name_zero_layers(zeros, len(rules), refused=guide.config.zero_curvature == "error")
    lost = 0.0 if truncation is None else max(data.processes.gather(max(truncation.lost.values(), default=0.0)))
    return curvature_record(guide, totals, data, columns_lost=lost)


def captured_batches(
    guide: LaplaceGuide,
    batches: Iterable[Batch],
    numbers: Iterable[int],
    *,
    rules: dict[str, LayerRule],
    totals: Totals,
    portions: Portions | None = None,
    truncation: ColumnTruncation | None = None,
    curvature: str | None = None,
) -> Iterator[CapturedBatch]:
    """Yield what each batch shows of the layers at a guide's point estimate.

    Parameters
    ----------
    guide : LaplaceGuide
    batches : iterable of tuple of Tensor
    numbers : iterable of int
        Of the batches; they decide the sampled labels.
    rules : dict of str to LayerRule
        The layers looked at.
    totals : Totals
        Grow by the data seen.
    portions : Portions, optional
        How much of a batch goes backwards at once; all of it when None.
    truncation : ColumnTruncation, optional
        Leaves out columns.
    curvature : str, optional
        Another kind of curvature than the guide's own.

    Yields
    ------
    CapturedBatch
    """
    # no gradient, and no graph, below the lowest layer looked at
    wanted = {site for layer in guide.structure.layers if layer.name in rules for site in layer.sites.values()}
    point = guide.point_estimate().items()
    weights = {name: value.clone().requires_grad_(name in wanted) for name, value in point}
    network = _PointNetwork(guide, weights, totals, curvature or guide.config.curvature)
    modules = {name: rule.module for name, rule in rules.items() if not isinstance(rule, DirectRule)}
    direct = direct_layers(guide.output_likelihood, weights, rules=rules, sites=guide.structure.layer_sites)
    again = partial(guide.output_likelihood, weights=weights)
    yield from CurvaturePass(network.forward, modules, direct, again).run(
        batches, network.columns, numbers=network.noted(numbers), portions=portions, truncation=truncation
    )


@dataclass
class _PointNetwork:
    """A guide's network at its point estimate: the likelihood of each batch, and what is passed backwards of it."""

    guide: LaplaceGuide
    weights: Mapping[str, torch.Tensor]
    totals: Totals
    curvature: str
    number: int = 0  # of the batch under way

    def noted(self, numbers: Iterable[int]) -> Iterator[int]:
        """Pass on the numbers of the batches; each is asked for just before its batch."""
        for self.number in numbers:
            yield self.number

    def forward(self, batch: Batch) -> OutputLikelihood:
        """Return the likelihood on the weights' graph, and count the batch."""
        structure = self.guide.structure
        with pyro.validation_enabled(False):  # the pass itself names the batch that is not finite
            trace, _ = run_at(self.guide.model, self.weights, batch, hold_parameters=True)
        node = trace.nodes[structure.observed]
        try:
            log_likelihood = node["fn"].log_prob(node["value"]).double().sum() if len(batch) > 1 else None
        except (IndexError, RuntimeError):
            check_batch(structure, batch)  # batches after the first are looked at only when they break
            raise
        self.totals.add(len(batch[0]), log_likelihood)
        return read(node["fn"])

    def columns(self, likelihood: OutputLikelihood, batch: Batch) -> Columns:
        """Return what is passed backwards, by the kind of curvature asked for."""
        guide = self.guide
        if guide.averaging is not None:
            return guide.averaging.columns(likelihood, batch)
        if self.curvature == "ggn":
            return HessianColumns(likelihood)
        return likelihood.columns(
            self.curvature,
            labels=batch[1] if len(batch) > 1 else None,
            num_samples=guide.config.num_fisher_samples,
            generator=self.totals.generator(self.number, likelihood.output.device),
        )


def name_zero_layers(layers: list[str], num_layers: int, *, refused: bool) -> None:
    """Say which layers have no curvature, as an error or a warning.

    Parameters
    ----------
    layers : list of str
        Those without.
    num_layers : int
        Of all.
    refused : bool
        Whether that is an error.

    Raises
    ------
    CurvatureError
        If it is refused, and there is such a layer.
    """
    if not layers:
        return
    named = ", ".join(f"'{name}'" for name in layers)
    cause = (
        "no gradient comes back at all, as from saturated outputs or through weights that are all zero. Look at "
        "the network's outputs"
        if len(layers) == num_layers
        else "all its gradients or inputs are zero, as before ReLUs that never open. Look at its activations"
    )
    remedy = f'keep it at its point estimate (AutoLaplace, structure={{"{layers[0]}": "point", "*": "kfac"}})'
    message = f"Each layer needs a curvature, but that of {named} is zero: {cause}, {remedy}"
    if refused:
        raise CurvatureError(f'{message}, or take its prior for its posterior: zero_curvature="prior".')
    warnings.warn(f"{message}. Its posterior here is its prior.", stacklevel=3)


def curvature_record(
    guide: LaplaceGuide, totals: Totals, data: DataPass, *, columns_lost: float = 0.0
) -> CurvatureRecord:
    """Return how a curvature was made, and warn where that is not what was asked for."""
    tolerance = guide.config.column_tolerance
    if columns_lost > tolerance:
        warnings.warn(
            f"At most {tolerance:g} of each layer's gradients was to be left out, but by batches taken whole, and the "
            f"outputs of the others, about {columns_lost:.2g} was. "
            "Shuffle the data, so that batches are alike, or pass a lower tolerance.",
            stacklevel=3,
        )
    num_seen = totals.num_seen
    if num_seen > guide.structure.num_data + 0.5:
        warnings.warn(
            f"The curvature went over {num_seen} data, but the model's plate stands for "
            f"{guide.structure.num_data:g}: the posterior is that of {guide.structure.num_data:g}. "
            f"Scale the likelihood in the model: num_data={num_seen}.",
            stacklevel=3,
        )
    scale = guide.structure.num_data / num_seen / guide.temperature
    seen = totals.log_likelihood
    return CurvatureRecord(
        guide.config.kind if guide.averaging is None else AVERAGED,
        guide.structure.num_data,
        num_seen,
        scale,
        log_likelihood=None if seen is None else seen * guide.structure.num_data / num_seen,
        num_processes=data.processes.count,
        weight_sharing=guide.config.weight_sharing,
        column_tolerance=tolerance,
        columns_lost=columns_lost,
        seconds=data.seconds,
        peak_memory_bytes=peak_memory_bytes(guide.loc.device),
    )
