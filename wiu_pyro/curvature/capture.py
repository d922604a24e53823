"""One pass over the data that shows each layer's inputs and output gradients to whoever accumulates them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from wiu_pyro.curvature.backward import Batch, Columns, Portions, gradients
from wiu_pyro.curvature.direct import DirectLayers
from wiu_pyro.curvature.layer_record import (
    CapturedBatch,
    LayerRecord,
    capture_layers,
    no_data_message,
    plain_attention,
)
from wiu_pyro.curvature.likelihood import OutputLikelihood
from wiu_pyro.curvature.truncation import ColumnTruncation
from wiu_pyro.errors import CurvatureError, DataError

__all__ = ["CurvaturePass", "refuse_training_mode"]

TRAINING_SENSITIVE = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
)


def refuse_training_mode(root: nn.Module) -> None:
    """Raise unless dropout and BatchNorm are in evaluation mode.

    Raises
    ------
    CurvatureError
        Naming the first module in training mode, or the first BatchNorm that keeps no running statistics: it normalises
        by the batch in evaluation too, so that one datum's output depends on the others.
    """
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise CurvatureError(
                f"A curvature needs outputs that depend on one datum each, but '{name}' ({type(module).__name__}) "
                "normalises by the batch. Make it with track_running_stats=True."
            )
        if module.training and isinstance(module, TRAINING_SENSITIVE):
            raise CurvatureError(
                f"A curvature needs a deterministic network, but '{name}' ({type(module).__name__}) is in training "
                "mode. Call model.eval() first; wiu_pyro.fit does so by itself."
            )


@dataclass(frozen=True)
class CurvaturePass:
    """A pass of a network at fixed weights over batches of data.

    Attributes
    ----------
    forward : callable
        Maps a batch (a tuple of tensors) to its `OutputLikelihood`, on the graph of weights that require gradients.
    layers : mapping of str to Module
        The layers to look at.
    direct : DirectLayers, optional
        Differentiates the network at the parameters of the layers that show no Jacobian of their own.
    again : callable, optional
        `forward` for data that it has seen before, in other batches; `forward` itself when None.
    """

    forward: Callable[[Batch], OutputLikelihood]
    layers: Mapping[str, nn.Module]
    direct: DirectLayers | None = None
    again: Callable[[Batch], OutputLikelihood] | None = None

    def run(
        self,
        batches: Iterable[Batch],
        columns: Callable[[OutputLikelihood, Batch], Columns],
        *,
        numbers: Iterable[int] | None = None,
        portions: Portions | None = None,
        truncation: ColumnTruncation | None = None,
    ) -> Iterator[CapturedBatch]:
        """Yield each batch's inputs and gradients.

        Parameters
        ----------
        batches : iterable of tuple of Tensor
        columns : callable
            Maps the likelihood and the batch to what is passed backwards, shape (columns, batch, outputs).
        numbers : iterable of int, optional
            Of the batches, for messages; asked for one just before its batch. From 0 when None.
        portions : Portions, optional
            Yield a batch in parts, by data or by columns, whose gradients are overwritten when the next part is asked
            for; all of a batch at once when None.
        truncation : ColumnTruncation, optional
            Leave out the columns that it says can be left out.

        Yields
        ------
        CapturedBatch

        Raises
        ------
        CurvatureError
            If no data came through a layer.
        DataError
            If an output is not finite.
        """
        portions = portions or Portions.whole()
        buffers: dict[int, torch.Tensor] = {}
        for index, batch in zip(itertools.count() if numbers is None else numbers, batches, strict=False):
            if truncation is not None and not truncation.next_is_whole():
                for part in portions.data_parts(batch, most=truncation.most_rows):
                    yield from self._truncated(part, columns, truncation=truncation, portions=portions, index=index)
                continue
            for part in portions.data_parts(batch):
                likelihood, record = self._look(self.forward, part, index=index)
                vectors = columns(likelihood, part)
                size = sum(record.outputs[name].numel() for name in self.layers)
                portions.note(size // len(part[0]), len(vectors))
                in_parts = portions.column_parts(vectors, size)
                shown = self._backwards(part, likelihood, record, columns=in_parts, buffers=buffers)
                yield from shown if truncation is None else _audited(shown, vectors, truncation)

    def _look(
        self,
        forward: Callable[[Batch], OutputLikelihood],
        batch: Batch,
        *,
        index: int,
        graph: bool = True,
    ) -> tuple[OutputLikelihood, LayerRecord]:
        with torch.set_grad_enabled(graph), plain_attention(), capture_layers(self.layers) as record:
            likelihood = forward(tuple(_plain_strides(part) for part in batch))
        self._check(index, likelihood, record)
        return likelihood, record

    def _truncated(
        self,
        batch: Batch,
        columns: Callable[[OutputLikelihood, Batch], Columns],
        *,
        truncation: ColumnTruncation,
        portions: Portions,
        index: int,
    ) -> Iterator[CapturedBatch]:
        """Yield the inputs of all data, then the columns worth it, of data that need as many together."""
        with torch.no_grad():
            likelihood, record = self._look(self.forward, batch, index=index, graph=False)
            vectors = columns(likelihood, batch)[:]
        yield CapturedBatch(likelihood, dict(record.inputs), {})
        del record
        for group in truncation.groups(vectors, most=portions.rows):
            part = tuple(one[group.rows] for one in batch)
            likelihood, record = self._look(self.again or self.forward, part, index=index)
            size = sum(record.outputs[name].numel() for name in self.layers)
            in_parts = portions.column_parts(group.columns, size)
            yield from self._backwards(part, likelihood, record, columns=in_parts, is_first=False)

    def _backwards(
        self,
        batch: Batch,
        likelihood: OutputLikelihood,
        record: LayerRecord,
        *,
        columns: Iterable[torch.Tensor],
        buffers: dict[int, torch.Tensor] | None = None,
        is_first: bool = True,
    ) -> Iterator[CapturedBatch]:
        outputs = [record.outputs[name] for name in self.layers]
        for part in columns:
            found = gradients(likelihood.output, outputs, part, buffers=buffers) if outputs else ()
            grads = dict(zip(self.layers, found, strict=True))
            for name, grad in grads.items():
                if grad is None:
                    raise CurvatureError(no_data_message(name))
            captured = CapturedBatch(likelihood, dict(record.inputs), grads, is_first)  # type: ignore[arg-type]
            del grads, found
            if self.direct is None:
                yield captured
            else:
                with self.direct.add_to(captured, batch, columns=part):
                    yield captured
            is_first = False

    def _check(self, index: int, likelihood: OutputLikelihood, record: LayerRecord) -> None:
        for name in self.layers:
            if name not in record.outputs:
                raise CurvatureError(no_data_message(name))
        if not torch.isfinite(likelihood.output).all():
            raise DataError(
                f"The network's output must be finite, but batch {index} gave NaN or infinity. "
                "Check the inputs of that batch and the trained weights."
            )


def _audited(shown: Iterable[CapturedBatch], columns: Columns, truncation: ColumnTruncation) -> Iterator[CapturedBatch]:
    """Pass on what a whole batch shows, and tell the truncation what each column came to."""
    weights: dict[str, list[torch.Tensor]] = {}
    for captured in shown:
        for name, grad in captured.grads.items():
            weights.setdefault(name, []).append(grad.flatten(2).square().sum(-1))
        yield captured
    norms = [columns[number : number + 1].square().sum(-1) for number in range(len(columns))]
    truncation.audit(torch.cat(norms), {name: torch.cat(parts) for name, parts in weights.items()})


def _plain_strides(part: torch.Tensor) -> torch.Tensor:
    """Return a view with the usual strides: images of one channel may pass for channels-last, slow to pool."""
    return part.view(-1).view(part.shape) if part.is_contiguous() else part
