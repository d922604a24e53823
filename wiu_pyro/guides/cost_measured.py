"""The time a Laplace approximation takes, from a few data.

Measured are forwards, backwards and the sums of small layers; the products of layers whose factors would already be
large, and the decompositions, are taken from the machine's rate at small ones. Of many classes one column is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from wiu_pyro.curvature import KroneckerFactors, LayerCurvature, Portions, Totals
from wiu_pyro.guides.captured import captured_batches
from wiu_pyro.guides.cost import Cost, LayerCost
from wiu_pyro.nn import Batches, count_batches

if TYPE_CHECKING:
    from wiu_pyro.guides.laplace import LaplaceGuide

__all__ = ["measure_cost"]

NUM_MEASURED = 32  # data of the timed batch
SMALL_BYTES = 256 * 2**20  # layers up to here are timed with their sums
SIDE_MEASURED = 384  # of the matrices whose product and decomposition are timed
MOST_SECONDS = 20.0  # a batch whose columns would take longer is timed with one column of one datum


def measure_cost(guide: LaplaceGuide, batches: Batches, layers: tuple[LayerCost, ...]) -> Cost:
    """Return the cost of a guide's approximation with times measured on a few data.

    Parameters
    ----------
    guide : LaplaceGuide
        Set up, and its layers looked at.
    batches : Batches
    layers : tuple of LayerCost
        Its blocks, without times.

    Returns
    -------
    Cost
    """
    first = next(iter(batches))
    few = tuple(part[:NUM_MEASURED] for part in first)
    name, most = type(guide).__name__, guide.max_bytes()
    if guide.config.curvature == "hessian":
        return Cost(name, layers, 0, most, None, "not measured: a Hessian goes backwards once for each weight")
    product, decomposition = _rates(guide.loc.device)
    columns = _columns_to_extrapolate(guide, few)
    if columns:
        few = tuple(part[:1] for part in few)
    seconds, held = _timed(guide, few, product, layers=layers, curvature="fisher_mc" if columns else None)
    if columns:
        seconds, held = seconds * columns, held + min(held * (columns - 1), _at_once(guide))
    scale = len(first[0]) / len(few[0])
    num = count_batches(batches)
    data = batches.num_data or (None if num is None else num * len(first[0]))
    rules = guide.layer_rules()
    timed = tuple(_with_seconds(layer, rules, decomposition) for layer in layers)
    timed_on = f"one datum, times {columns:,} columns" if columns else f"{len(few[0])} data"
    measured = (
        f"timed on {timed_on}; large products and decompositions by arithmetic at {product / 1e9:.0f} and "
        f"{decomposition / 1e9:.1f} GFLOP/s"
    )
    spent = None if data is None else seconds * data / len(few[0])
    return Cost(name, timed, round(held * scale), most, spent, measured)


def _columns_to_extrapolate(guide: LaplaceGuide, few: tuple[torch.Tensor, ...]) -> int:
    """Return the columns of the GGN where going backwards with all of them would take long; else 0."""
    if guide.config.curvature != "ggn":
        return 0
    one = tuple(part[:1] for part in few)
    began = time.perf_counter()
    with torch.no_grad():
        columns = guide.output_likelihood(one, guide.point_estimate()).num_columns
    backwards = 2 * (time.perf_counter() - began) * columns * len(few[0])
    return columns if backwards > MOST_SECONDS else 0


def _at_once(guide: LaplaceGuide) -> int:
    """Return the bytes of the gradients that a pass over all columns holds at once, and of what is made of them."""
    return 2 * guide.loc.element_size() * Portions.fitting(guide.loc.device, alone=False).column_elements


def _with_seconds(layer: LayerCost, rules: dict[str, Any], rate: float) -> LayerCost:
    rule, seconds = rules.get(layer.name), 0.0
    if layer.structure in ("kfac", "ekfac") and rule is not None:
        seconds = rule.groups * 10 * (rule.in_features**3 + rule.out_features**3) / rate
    elif layer.structure == "full":
        seconds = 3 * layer.num_weights**3 / (8 * rate)  # factor and inverse: products, far faster
    return LayerCost(**{**layer.__dict__, "seconds": seconds})


def _rates(device: torch.device) -> tuple[float, float]:
    """Return floating-point operations a second of a product (float32) and of an eigendecomposition (float64)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(SIDE_MEASURED, SIDE_MEASURED, generator=generator).to(device)
    gram = (matrix @ matrix.mT).double()
    return (
        2 * SIDE_MEASURED**3 / _seconds(lambda: matrix @ matrix, device),
        10 * SIDE_MEASURED**3 / _seconds(lambda: torch.linalg.eigh(gram), device, times=1),
    )


def _seconds(work: Callable[[], Any], device: torch.device, *, times: int = 3) -> float:
    """Return the least time of some runs after one to warm up."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return max(min(found[1:]), 1e-9)


def _timed(
    guide: LaplaceGuide,
    few: tuple[torch.Tensor, ...],
    product: float,
    *,
    layers: tuple[LayerCost, ...],
    curvature: str | None,
) -> tuple[float, int]:
    """Return seconds of all passes over a few data, and bytes held by the batch; of a kind of curvature, or its own."""
    joint = [layer for layer in layers if layer.structure == "full" and layer.name not in guide.new_parts()]
    held, extra = 0, 0.0

    def work() -> None:
        nonlocal held, extra
        parts = guide.new_parts()
        small = {name: one for name, one in parts.items() if _is_small(one)}
        extra, held = 0.0, 0
        portions = Portions.fitting(guide.loc.device, alone=(curvature or guide.config.curvature) == "fisher_mc")
        # the parts' own rules: those of layers that are differentiated directly ask the pass under way
        rules = guide.layer_rules() | {name: one.rule for name, one in parts.items() if isinstance(one, LayerCurvature)}
        show = partial(captured_batches, guide, rules=rules, totals=Totals(), portions=portions, curvature=curvature)
        for shown in show([few], [0]):
            columns = len(next(iter(shown.grads.values())))
            extra += sum(_full_products(layer.num_weights, columns * len(few[0])) for layer in joint) / product
            held = max(held, sum(2 * one.nbytes for one in [*shown.inputs.values(), *shown.grads.values()]))
            for name, part in parts.items():
                if name in small:
                    part.take(name, shown)
                else:
                    extra += _products(part, shown, name) / product

    passes = max((part.num_passes for part in guide.new_parts().values()), default=1)
    with torch.random.fork_rng(devices=[]):
        seconds = _seconds(work, guide.loc.device)
    return passes * (seconds + extra), held


def _is_small(part: Any) -> bool:
    return not isinstance(part, LayerCurvature) or part.num_elements(part.rule) * 4 <= SMALL_BYTES


def _products(part: Any, shown: Any, name: str) -> float:
    """Return the floating-point operations by which a batch enters a large layer's sums."""
    rule, grads = part.rule, shown.grads[name]
    if isinstance(part, KroneckerFactors):
        uses = grads[0].numel() / (rule.groups * rule.out_features)
        return 2 * uses * rule.groups * (rule.in_features**2 + len(grads) * rule.out_features**2)
    data_columns = len(grads) * grads.shape[1]
    return _full_products(rule.numel, data_columns) if part.structure == "full" else 2.0 * data_columns * rule.numel


def _full_products(num_weights: int, data_columns: int) -> float:
    """Return the operations of so many outer products, counted threefold: they are float64, and added to a matrix."""
    return 3 * 2.0 * data_columns * num_weights**2
