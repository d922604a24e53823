"""Accumulate the curvature of several layers, each in its own structure, over passes of the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wiu_pyro.curvature.capture import CapturedBatch
from wiu_pyro.curvature.layer_curvature import LayerCurvature

__all__ = ["accumulate"]


def accumulate(one_pass: Callable[[], Iterable[CapturedBatch]], curvatures: Mapping[str, LayerCurvature]) -> None:
    """Go over the data as often as the structures need, and add each batch to each layer's curvature.

    Parameters
    ----------
    one_pass : callable
        Starts a pass over the data and returns its batches; called once for each pass.
    curvatures : mapping of str to LayerCurvature
        By layer; filled in place.
    """
    passes = max((curvature.num_passes for curvature in curvatures.values()), default=0)
    for number in range(passes):
        taking = {name: curvature for name, curvature in curvatures.items() if number < curvature.num_passes}
        for captured in one_pass():
            for name, curvature in taking.items():
                curvature.update(captured.inputs[name], captured.grads[name])
        for curvature in taking.values():
            if number + 1 < curvature.num_passes:
                curvature.end_pass(number)
