"""What a Laplace approximation takes, said before anything large is allocated: memory by layer, and time.

Memory is arithmetic: the sums of a pass, what they end as, the scratch of the largest decomposition, and what one batch
holds. Time is measured, by `measure_cost`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wiu_pyro.curvature import LayerCurvature, bytes_in_words
from wiu_pyro.errors import CostError

__all__ = ["Cost", "LayerCost", "full_cost", "layer_cost", "refuse_what_does_not_fit"]


@dataclass(frozen=True)
class LayerCost:
    """What one block of a posterior takes.

    Attributes
    ----------
    name : str
        The layer, or what the block is over.
    structure : str
    num_weights : int
    memory_bytes : int
        Sums and the precision they end as, kept together.
    scratch_bytes : int
        More for a while, when the pass ends.
    seconds : float or None
        Of the decomposition; None before it was measured.
    note : str
        Why the structure is not the one asked for; empty where it is.
    """

    name: str
    structure: str
    num_weights: int
    memory_bytes: int
    scratch_bytes: int = 0
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What a Laplace approximation takes; printed as a table.

    Attributes
    ----------
    guide : str
    layers : tuple of LayerCost
    batch_bytes : int
        Inputs, outputs and gradients of one batch at the layers, about.
    available_bytes : int
        What it may take.
    pass_seconds : float or None
        Of all passes over the data in one process; None where their length is not known, or for a Hessian.
    measured : str
        What the times rest on.
    """

    guide: str
    layers: tuple[LayerCost, ...]
    batch_bytes: int
    available_bytes: int
    pass_seconds: float | None
    measured: str

    @property
    def memory_bytes(self) -> int:
        """Kept by all blocks together."""
        return sum(layer.memory_bytes for layer in self.layers)

    @property
    def peak_bytes(self) -> int:
        """At the worst moment: a batch under way, or the largest decomposition."""
        return self.memory_bytes + max([self.batch_bytes, *(layer.scratch_bytes for layer in self.layers)])

    @property
    def fits(self) -> bool:
        """Whether the peak is within what it may take."""
        return self.peak_bytes <= self.available_bytes

    @property
    def decomposition_seconds(self) -> float:
        """Of all decompositions together."""
        return sum(layer.seconds or 0.0 for layer in self.layers)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each block, as plain values."""
        return [
            {
                "layer": layer.name,
                "structure": layer.structure,
                "num_weights": layer.num_weights,
                "memory": bytes_in_words(layer.memory_bytes),
                "scratch": bytes_in_words(layer.scratch_bytes),
                "seconds": None if layer.seconds is None else round(layer.seconds, 2),
                "note": layer.note,
            }
            for layer in self.layers
        ]

    def __str__(self) -> str:
        """Return the table and its sums."""
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':{width}}  {'structure':9}  {'weights':>13}  {'memory':>9}  {'scratch':>9}  {'seconds':>8}"]
        for layer in self.layers:
            memory, scratch = bytes_in_words(layer.memory_bytes), bytes_in_words(layer.scratch_bytes)
            spent = "" if layer.seconds is None else f"{layer.seconds:.3g}"
            words = f"{layer.name:{width}}  {layer.structure:9}  {layer.num_weights:13,}  {memory:>9}  {scratch:>9}"
            lines.append(f"{words}  {spent:>8}" + (f"  ({layer.note})" if layer.note else ""))
        passes = "not known" if self.pass_seconds is None else f"about {_in_words(self.pass_seconds)}"
        lines += [
            f"Memory: {bytes_in_words(self.memory_bytes)} kept, {bytes_in_words(self.peak_bytes)} at the peak, of "
            f"{bytes_in_words(self.available_bytes)} it may take: {'it fits' if self.fits else 'IT DOES NOT FIT'}.",
            f"Time: {passes} over the data, then about {_in_words(self.decomposition_seconds)} of decompositions "
            f"({self.measured}).",
        ]
        return "\n".join(lines)


def _in_words(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} s"


def layer_cost(name: str, curvature: LayerCurvature, *, itemsize: int, note: str = "") -> LayerCost:
    """Return what a layer takes in a structure, by arithmetic; nothing is allocated."""
    rule = curvature.rule
    return LayerCost(
        name,
        curvature.structure,
        rule.numel,
        curvature.num_elements(rule) * itemsize,
        curvature.scratch_bytes(rule),
        note=note,
    )


def full_cost(name: str, num_weights: int) -> LayerCost:
    """Return what one full block takes: in float64 the sum, its factor and the covariance, and two more for a while."""
    return LayerCost(name, "full", num_weights, 3 * 8 * num_weights**2, 2 * 8 * num_weights**2)


def refuse_what_does_not_fit(
    guide: str, layers: tuple[LayerCost, ...], most: int, *, instead: Callable[[str], str]
) -> None:
    """Raise unless the layers' memory and the largest scratch are within `most` bytes.

    Parameters
    ----------
    guide : str
        Its class, for the message.
    layers : tuple of LayerCost
    most : int
        Bytes.
    instead : callable
        Maps the name of the layer that takes most to what to do.

    Raises
    ------
    CostError
        Naming that layer, what it would take and what fits.
    """
    total = sum(layer.memory_bytes for layer in layers)
    peak = total + max((layer.scratch_bytes for layer in layers), default=0)
    if peak <= most:
        return
    worst = max(layers, key=lambda layer: layer.memory_bytes + layer.scratch_bytes)
    needed = f"needs {bytes_in_words(peak)}, more than the {bytes_in_words(most)} it may take"
    if len(layers) == 1:
        raise CostError(f"{guide} of {worst.num_weights:,} weights {needed}. {instead(worst.name)}")
    raise CostError(
        f"{guide} {needed}; layer '{worst.name}' ({worst.structure}, {worst.num_weights:,} weights) alone takes "
        f"{bytes_in_words(worst.memory_bytes + worst.scratch_bytes)}. {instead(worst.name)}"
    )
