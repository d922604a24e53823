"""Where the dropouts of a network lead: which columns of which weights each entry of a mask multiplies.

The network is run once, in evaluation mode, and watched: every call of ``torch.nn.functional.dropout`` and of its
forms for whole channels gives its output a number for each entry of its mask, and these numbers are followed through
reshaping, ReLU and pooling to the layer that multiplies them by weights. There a mask on the inputs is a mask on the
columns of the weight (Gal and Ghahramani 2016, Dropout as a Bayesian Approximation, section 3).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from pyro import poutine
from torch import nn
from torch.overrides import TorchFunctionMode

from wiu_pyro.nn import evaluation_mode, run_at, weight_module

__all__ = ["Dropout", "find_dropouts"]

ELEMENTS = {F.dropout: "dropout"}
CHANNELS = {F.dropout1d: "dropout1d", F.dropout2d: "dropout2d", F.dropout3d: "dropout3d"}
NO_MASKS = {F.alpha_dropout: "alpha_dropout", F.feature_alpha_dropout: "feature_alpha_dropout"}
# a mask of zeros and one positive number passes through these: f(m x) = m f(x), entry by entry
PASSING = {"relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "clone", "contiguous", "detach", "abs", "to", "float"}
SCALING = {"mul", "__mul__", "__rmul__", "div", "__truediv__"}  # by a number
RESHAPING = {
    *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "movedim", "swapaxes", "unflatten"),
    "__getitem__",
}
# and through these where it is the same at all positions of a channel
POOLING = {f"{kind}pool{dims}d" for kind in ("max_", "avg_", "adaptive_max_", "adaptive_avg_") for dims in (1, 2, 3)}
POOLING |= {"mean"}
LINEAR, CONVOLUTIONS = "linear", {"conv1d", "conv2d", "conv3d"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}


@dataclass
class Dropout:
    """One call of a dropout in the forward pass.

    Attributes
    ----------
    name : str
        Path of its module; of a function called without one, the function's name.
    probability : float
        Of an entry to be dropped.
    size : int
        Entries of the mask of one datum.
    columns : dict of site to Tensor of int64
        Which entry multiplies which weights, in a shape that broadcasts to the weight's.
    problem : str
        Why the mask is no draw of weights; empty where it is.
    """

    name: str
    probability: float
    size: int = 0
    columns: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    problem: str = ""


def find_dropouts(
    model: Callable[..., Any], weights: Mapping[str, torch.Tensor], batch: tuple[torch.Tensor, ...]
) -> list[Dropout]:
    """Return every call of a dropout in one pass of a model, those without effect (p = 0) left out.

    Parameters
    ----------
    model : callable
        A Pyro model.
    weights : mapping of site to Tensor
        A value for each site.
    batch : tuple of Tensor

    Returns
    -------
    list of Dropout
        In the order of the pass, then what a module holds and the pass in evaluation mode did not show.
    """
    root = weight_module(model)
    modules = {} if root is None else dict(root.named_modules())
    trail = _Trail({id(value): name for name, value in weights.items()})
    with _named(modules, trail), torch.no_grad(), poutine.block(), evaluation_mode(model), trail:
        run_at(model, weights, batch)
    return trail.found() + _unseen(modules, trail)


@contextmanager
def _named(modules: Mapping[str, nn.Module], trail: _Trail) -> Iterator[None]:
    """Let the trail know which dropout module is running."""

    def enter(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            trail.module = name
            trail.called.add(name)

        return note

    def leave(*_: Any) -> None:
        trail.module = ""

    dropouts = {name: module for name, module in modules.items() if isinstance(module, nn.modules.dropout._DropoutNd)}
    handles = [module.register_forward_pre_hook(enter(name)) for name, module in dropouts.items()]
    handles += [module.register_forward_hook(leave) for module in dropouts.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unseen(modules: Mapping[str, nn.Module], trail: _Trail) -> list[Dropout]:
    """Return the dropouts that modules hold and the pass did not show."""
    found = []
    for name, module in modules.items():
        own = isinstance(module, nn.modules.dropout._DropoutNd)
        inside = isinstance(module, nn.RNNBase | nn.MultiheadAttention)
        probability = float(module.p) if own else float(module.dropout) if inside else 0.0  # type: ignore[arg-type]
        if probability > 0 and not (own and name in trail.called):
            reason = "is not called in evaluation mode" if own else f"acts inside {type(module).__name__}"
            found.append(Dropout(name or type(module).__name__, probability, problem=reason))
    return found


@dataclass
class _Mark:
    """Which entry of a dropout's mask each entry of a tensor is multiplied by; of the tensor's shape."""

    dropout: Dropout
    index: torch.Tensor


class _Trail(TorchFunctionMode):
    """Watches a pass: marks what dropouts give out, and follows the marks."""

    def __init__(self, sites: dict[int, str]) -> None:
        super().__init__()
        self.sites = sites
        self.module = ""
        self.called: set[str] = set()
        self.dropouts: list[Dropout] = []
        self.uses: dict[str, int] = {}
        self.marks: dict[int, list[_Mark]] = {}
        self.alive: list[torch.Tensor] = []  # ids are theirs alone as long as they live

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in ELEMENTS or func in CHANNELS or func in NO_MASKS:
            return self._drop(func, args, kwargs, output)
        name = getattr(func, "__name__", "")
        if name == LINEAR or name in CONVOLUTIONS | TRANSPOSED:
            self._multiply(name, args, kwargs)
        elif isinstance(output, torch.Tensor | tuple | list):
            self._follow(func, name, args, kwargs, output)
        return output

    def found(self) -> list[Dropout]:
        """Return the dropouts, each with its columns or its problem."""
        for dropout in self.dropouts:
            twice = [site for site in dropout.columns if self.uses[site] > 1]
            if twice and not dropout.problem:
                dropout.problem = f"feeds '{twice[0]}', which is used {self.uses[twice[0]]} times in a pass"
            if not dropout.columns and not dropout.problem:
                dropout.problem = "feeds no layer with weights"
        return self.dropouts

    def _drop(self, func: Any, args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor:
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        source, probability = given.arguments["input"], float(given.arguments["p"])
        if probability == 0:
            return output
        dropout = Dropout(self.module or f"torch.nn.functional.{func.__name__}", probability)
        self.dropouts.append(dropout)
        if func in NO_MASKS:
            dropout.problem = f"is {func.__name__}, whose noise is no mask of zeros and ones"
        elif given.arguments["training"]:
            dropout.problem = "stays on in evaluation mode"
        elif probability >= 1:
            dropout.problem = "drops everything (p = 1)"
        shape = source.shape[1:] if func in ELEMENTS else source.shape[1:2]
        dropout.size = shape.numel()
        index = torch.arange(dropout.size, device=source.device).view(1, *shape, *[1] * (source.dim() - 1 - len(shape)))
        output = output.view_as(output)  # in evaluation mode a dropout gives out the very tensor it was given
        return self._mark(output, [*self.marks.get(id(source), []), _Mark(dropout, index.expand(source.shape))])

    def _mark(self, tensor: torch.Tensor, marks: list[_Mark]) -> torch.Tensor:
        self.marks[id(tensor)] = marks
        self.alive.append(tensor)
        return tensor

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, output: Any) -> None:
        flat = [*args, *kwargs.values()]
        flat = [*flat, *(part for item in flat if isinstance(item, tuple | list) for part in item)]
        given = [item for item in flat if isinstance(item, torch.Tensor)]
        marked = [item for item in given if id(item) in self.marks]
        if not marked:
            return
        marks = self.marks[id(marked[0])]
        single = len(given) == 1 or name == "prelu"
        if single and isinstance(output, torch.Tensor):
            passed = [_passed(func, name, mark, args, kwargs, output) for mark in marks]
            if all(mark is not None for mark in passed):
                self._mark(output, passed)  # type: ignore[arg-type]
                return
        for mark in (mark for item in marked for mark in self.marks[id(item)]):
            mark.dropout.problem = mark.dropout.problem or f"goes into {_shown(func, name)} before any layer's weights"

    def _multiply(self, name: str, args: Any, kwargs: Any) -> None:
        """Turn marks on the inputs of a layer into columns of its weight."""
        source = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        site = self.sites.get(id(weight))
        if site is not None:
            self.uses[site] = self.uses.get(site, 0) + 1
        for mark in self.marks.get(id(source), []):
            dropout = mark.dropout
            if site is None:
                dropout.problem = dropout.problem or f"feeds a {name} whose weight has no prior"
                continue
            entries = _entries(mark.index, -1 if name == LINEAR else 1)
            if entries is None or (name != LINEAR and source.dim() != weight.dim()):
                dropout.problem = dropout.problem or (
                    f"has a mask of its own at each position of '{site}', which uses the same weights at all of them"
                )
                continue
            dropout.columns[site] = _columns(entries, weight.shape, groups, transposed=name in TRANSPOSED)


def _passed(func: Any, name: str, mark: _Mark, args: Any, kwargs: Any, output: torch.Tensor) -> _Mark | None:
    """Return the mark of an operation's output, or None where the mask does not come through."""
    index = mark.index
    if name in PASSING or (name in SCALING and _by_number(args, kwargs)):
        return _Mark(mark.dropout, index) if output.shape == index.shape else None
    if name in RESHAPING:
        return _Mark(mark.dropout, func(index, *args[1:], **kwargs))
    if name in POOLING and output.dim() >= 2 and index.dim() > 2 and output.shape[:2] == index.shape[:2]:
        own = index.flatten(2)[..., :1]  # (batch, channels, 1)
        if bool((index.flatten(2) == own).all()):
            return _Mark(mark.dropout, own.view(*index.shape[:2], *[1] * (output.dim() - 2)).expand(output.shape))
    return None


def _by_number(args: Any, kwargs: Any) -> bool:
    """Return whether an operation's other argument is one number: a mask commutes with any."""
    others = [*args[1:], *kwargs.values()]
    return len(others) == 1 and isinstance(others[0], int | float)


def _shown(func: Any, name: str) -> str:
    return f"'{name.strip('_')}'" if name and name != "__get__" else f"'{getattr(func, '__qualname__', func)}'"


def _entries(index: torch.Tensor, channel: int) -> torch.Tensor | None:
    """Return the mask's entry of each channel, shape (channels,), or None where it differs by datum or position."""
    rows = index.movedim(channel, -1).reshape(-1, index.shape[channel])
    return rows[0] if bool((rows == rows[0]).all()) else None


def _columns(entries: torch.Tensor, shape: torch.Size, groups: int, *, transposed: bool) -> torch.Tensor:
    """Return the mask's entry of each weight, in a shape that broadcasts to the weight's."""
    tail = [1] * (len(shape) - 2)
    if transposed:
        return entries.view(-1, 1, *tail)  # (in, out / groups, *kernel)
    if groups == 1:
        return entries.view(1, -1, *tail)  # (out, in, *kernel)
    per_group = entries.view(groups, -1).repeat_interleave(shape[0] // groups, 0)  # (out, in / groups)
    return per_group.view(*per_group.shape, *tail)
