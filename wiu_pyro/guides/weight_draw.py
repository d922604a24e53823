"""A draw of Normal weights that is made only where it is needed as such.

A layer that samples its output instead (`wiu_pyro.guides.output_noise`) takes the weights' means and sds from it; any
other operation gets the draw itself, the same one each time. So a Pyro model runs as it is, whatever it does with its
weights, and pays for no noise it does not use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from wiu_pyro.errors import ModelError
from wiu_pyro.guides.output_noise import Moments, OutputNoise

__all__ = ["DrawSource", "WeightDraw"]

Span = tuple[int, int]


class DrawSource:
    """The Normal that draws come from: one for all of its views, so that they agree.

    Parameters
    ----------
    loc, scale : Tensor, of one shape
        Mean and sd of each weight.
    rule : OutputNoise
    num_rows : int, optional
        Rows of a layer's input when each is a datum; a layer with another number of rows gets the draw itself.
    """

    def __init__(
        self, loc: torch.Tensor, scale: torch.Tensor, rule: OutputNoise, *, num_rows: int | None = None
    ) -> None:
        self.loc, self.scale, self.rule, self.num_rows = loc, scale, rule, num_rows
        self.drawn: dict[Span, torch.Tensor] = {}
        self.used: set[Span] = set()  # by layers that sampled their output
        self.taken: set[Span] = set()  # by operations that compute with the draw itself
        self.closed: dict[Span, torch.Tensor] = {}  # the KL of what has one in closed form
        self.site_scale: Any = 1.0  # by which Pyro multiplies the site's log-probability

    def draw(self) -> WeightDraw:
        """Return the draw of all of it."""
        return _wrap(self, (0, self.loc.numel()), self.loc, self.scale)

    def split(self, shapes: list[torch.Size]) -> list[WeightDraw]:
        """Return the draws of consecutive parts of a flat source, by their shapes."""
        sizes = [shape.numel() for shape in shapes]
        ends = list(itertools.accumulate(sizes))
        # one backward for all, where slices need one each
        locs, scales = self.loc.split(sizes), self.scale.split(sizes)
        return [
            _wrap(self, (end - size, end), loc.view(shape), scale.view(shape))
            for size, end, shape, loc, scale in zip(sizes, ends, shapes, locs, scales, strict=True)
        ]

    def value(self, span: Span, moments: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the drawn weights of a part, flat, on the graph of means and sds: those of the part, where given."""
        whole = (0, self.loc.numel())
        if span not in self.drawn and whole in self.drawn:
            return self.drawn[whole][span[0] : span[1]]
        if span not in self.drawn:
            if moments is None:
                moments = self.loc.reshape(-1)[span[0] : span[1]], self.scale.reshape(-1)[span[0] : span[1]]
            loc, scale = moments
            value = torch.addcmul(loc, scale, torch.randn_like(loc)).reshape(-1)
            if span == whole and self.drawn:
                value = value.clone()
                for known, part in self.drawn.items():
                    value[known[0] : known[1]] = part
            self.drawn[span] = value
        return self.drawn[span]

    def open_spans(self) -> list[Span]:
        """Return the parts without a KL in closed form, in order."""
        found, start = [], 0
        for first, last in sorted(self.closed):
            if first > start:
                found.append((start, first))
            start = max(start, last)
        if start < self.loc.numel():
            found.append((start, self.loc.numel()))
        return found

    def log_prob(self) -> torch.Tensor:
        """Return log q of the draw, of what has no KL in closed form: a scalar, in nats."""
        total = self.loc.new_zeros(())
        for span in self.open_spans():
            loc, scale = (part.reshape(-1)[span[0] : span[1]] for part in (self.loc, self.scale))
            normal = torch.distributions.Normal(loc, scale, validate_args=False)
            total = total + normal.log_prob(self.value(span)).sum()
        return total


class WeightDraw(torch.Tensor):
    """A draw not made yet: it has the draw's shape and type, and becomes the draw where an operation needs numbers.

    Attributes
    ----------
    source : DrawSource
    span : tuple of int
        The part of the source, flattened, that this is.
    loc, scale : Tensor
        Mean and sd of each weight.
    """

    source: DrawSource
    span: Span
    loc: torch.Tensor
    scale: torch.Tensor

    def drawn(self) -> torch.Tensor:
        """Return the draw as a plain tensor, on the graph of means and sds."""
        return self.source.value(self.span, (self.loc, self.scale)).view(self.loc.shape)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer what needs no draw from the means; sample a layer's output; else run `func` on the draw."""
        kwargs = kwargs or {}
        if func in DESCRIPTIONS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in VIEWS and isinstance(args[0], WeightDraw):
            view = _view(func, args, kwargs)
            if view is not None:
                return view
        if func in LAYERS:
            output = _layer(func, args, kwargs)
            if output is not None:
                return output
        if func in LAYERS or func in COMPUTING:
            for part in (*args, *kwargs.values()):
                if isinstance(part, WeightDraw):
                    _claim(part, sampled=False)
        return func(*_plain(args), **_plain(kwargs))


def _wrap(source: DrawSource, span: Span, loc: torch.Tensor, scale: torch.Tensor) -> WeightDraw:
    draw = loc.as_subclass(WeightDraw)
    draw.source, draw.span, draw.loc, draw.scale = source, span, loc, scale
    return draw


def _plain(value: Any) -> Any:
    if isinstance(value, WeightDraw):
        return value.drawn()
    if isinstance(value, tuple | list):
        return type(value)(_plain(part) for part in value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _view(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> WeightDraw | None:
    draw: WeightDraw = args[0]
    span = draw.span
    if func is torch.Tensor.__getitem__:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        index = tuple(part for part in index if part is not Ellipsis)
        if draw.loc.dim() != 1 or len(index) != 1 or not isinstance(index[0], slice):
            return None
        start, stop, step = index[0].indices(len(draw.loc))
        if step != 1:
            return None
        span = (span[0] + start, span[0] + stop)
    loc = func(draw.loc, *args[1:], **kwargs)
    if loc.numel() != span[1] - span[0]:
        return None
    if span != draw.span and draw.source.loc.dim() != 1:
        return None
    return _wrap(draw.source, span, loc, func(draw.scale, *args[1:], **kwargs))


def _layer(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Return the sampled output of a layer; None where its weights have to be drawn."""
    names = ("input", "weight", "bias", *LAYERS[func])
    given = dict(zip(names, args, strict=False)) | kwargs
    layer_input, weight, bias = given["input"], given["weight"], given.get("bias")
    if not isinstance(weight, WeightDraw) or isinstance(layer_input, WeightDraw):
        return None
    source = weight.source
    if source.rule.needs_draw(vectors=func is F.linear and layer_input.dim() == 2):
        return None
    unbatched = layer_input.dim() < (2 if func is F.linear else weight.dim())
    if unbatched or (source.num_rows is not None and len(layer_input) != source.num_rows):
        return None
    draws = [part for part in (weight, bias) if isinstance(part, WeightDraw)]
    for part in draws:
        _claim(part, sampled=True)
    options = tuple(given.get(name, default) for name, default in LAYERS[func].items())
    if func is F.linear:
        return source.rule.linear(layer_input, _moments(weight), _moments(bias))
    return source.rule.convolution(func, layer_input, _moments(weight), _moments(bias), *options)


def _claim(draw: WeightDraw, *, sampled: bool) -> None:
    """Note a use of a draw; raise where a layer that samples its output is not its only use."""
    source, (first, last) = draw.source, draw.span
    before = source.used | source.taken if sampled else source.used
    if any(first < end and start < last for start, end in before):
        raise ModelError(
            "Sampling a layer's output needs each layer to be used once in a pass, but weights of shape "
            f"{tuple(draw.shape)} were used twice, and the two outputs would not share their noise. Draw the weights "
            'instead: AutoMeanField(model, estimator="reparam"), or the handler reparameterization().'
        )
    (source.used if sampled else source.taken).add(draw.span)


def _moments(value: Any) -> Any:
    if isinstance(value, WeightDraw):
        return Moments(value.loc, value.scale)
    return None if value is None else Moments(value)


_CONVOLUTION = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
LAYERS: dict[Any, dict[str, Any]] = {
    F.linear: {},
    torch.conv1d: _CONVOLUTION,
    torch.conv2d: _CONVOLUTION,
    torch.conv3d: _CONVOLUTION,
}
VIEWS = {
    torch.Tensor.__getitem__,
    torch.Tensor.view,
    torch.Tensor.reshape,
    torch.Tensor.expand,
    torch.Tensor.contiguous,
    torch.reshape,
}
COMPUTING = {  # with weights as such, so that a prior's density, which may have a draw of its own, is none of it
    torch.Tensor.t,
    torch.Tensor.transpose,
    torch.Tensor.permute,
    torch.Tensor.flip,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__,
    torch.Tensor.mm,
    torch.Tensor.mv,
    torch.Tensor.bmm,
    torch.Tensor.__getitem__,
    torch.t,
    torch.transpose,
    torch.permute,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
    torch.einsum,
    torch.embedding,
    F.embedding,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
} | {getattr(torch.Tensor, name).__get__ for name in ("T", "mT")}
_PROPERTIES = (
    "shape",
    "dtype",
    "device",
    "ndim",
    "requires_grad",
    "is_leaf",
    "grad_fn",
    "layout",
    "is_cuda",
    "is_sparse",
)
DESCRIPTIONS = {getattr(torch.Tensor, name).__get__ for name in _PROPERTIES} | {
    torch.Tensor.dim,
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.__len__,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_complex,
    torch.Tensor.__hash__,
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
    torch.zeros_like,
    torch.ones_like,
    torch.empty_like,
    torch.randn_like,
}
