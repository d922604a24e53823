"""What a forward pass shows of the layers it goes through: hooks that record them, and what is handed on of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wiu_pyro.curvature.likelihood import OutputLikelihood
from wiu_pyro.errors import ModelError

__all__ = ["CapturedBatch", "LayerRecord", "capture_layers", "no_data_message", "plain_attention"]


@dataclass
class LayerRecord:
    """Input and output of each layer that was called, by name."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def capture_layers(layers: Mapping[str, nn.Module]) -> Iterator[LayerRecord]:
    """Record input and output of each layer during forward passes inside the context.

    The network goes on with a copy of each output, so that an in-place activation after the layer cannot touch what is
    recorded.

    Parameters
    ----------
    layers : mapping of str to Module
        The layers to look at, by name.

    Yields
    ------
    LayerRecord
        ``inputs`` and ``outputs`` of each layer that was called, by name.

    Raises
    ------
    ModelError
        If a layer is called twice in one pass: its Jacobian would not be one layer's.
    """
    record = LayerRecord()

    def hook(name: str) -> Callable[..., torch.Tensor]:
        def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
            if name in record.outputs:
                raise ModelError(
                    f"Each layer must be used once in a pass, but '{name}' was called twice (shared weights). "
                    "Give each use its own layer, or leave it without a prior."
                )
            record.inputs[name] = (args[0] if args else next(iter(named.values()))).detach()
            record.outputs[name] = output
            return output.clone()

        return keep

    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in layers.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def plain_attention() -> AbstractContextManager[None]:
    """Return a context in which attention is made of operations that go backwards for many columns at once."""
    return sdpa_kernel(SDPBackend.MATH)


@dataclass(frozen=True)
class CapturedBatch:
    """What one batch shows of the layers, or some columns of it: all that is summed is a sum over columns too.

    Attributes
    ----------
    likelihood : OutputLikelihood
    inputs : dict of str to Tensor, shape (batch, *input_shape)
    grads : dict of str to Tensor, shape (columns, batch, *output_shape)
        Empty where only the inputs are shown.
    is_first : bool
        Whether these data are shown for the first time; False with further columns of the same data.
    """

    likelihood: OutputLikelihood
    inputs: dict[str, torch.Tensor]
    grads: dict[str, torch.Tensor]
    is_first: bool = True


def no_data_message(name: str) -> str:
    """Return what is said of a layer that does not shape the output."""
    return (
        f"Every layer with a prior must shape the output, but no data came through layer '{name}'. "
        "Leave it without a prior, or call it in the network's forward."
    )
