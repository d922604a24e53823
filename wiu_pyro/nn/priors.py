"""Priors on the weights of a network: what stands at each ``pyro.sample`` site before any data came.

`FanInNormal` keeps the scale of the function the same at every width (Neal 1996, *Bayesian Learning for Neural
Networks*, chapter 2); its factor 2 is that of He et al. (2015, eq. 10) for ReLU networks. Mixtures stand in
`wiu_pyro.nn.mixture_priors`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

import pyro.distributions as dist
import torch
from torch import nn
from typing_extensions import override

from wiu_pyro.errors import PriorError, a_name, near_matches

__all__ = ["FanInNormal", "Laplace", "Normal", "Prior", "fan_in", "match_priors"]

NORMALISATION = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def fan_in(parameter: torch.Tensor) -> int:
    """Return the number of inputs of one output unit: the elements of a weight per row of its first axis."""
    return parameter.numel() // max(parameter.shape[0], 1)


class Prior(ABC):
    """A rule that gives the prior of one parameter; subclass it to add a prior of your own."""

    @abstractmethod
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        """Return the prior of one parameter.

        Parameters
        ----------
        parameter : Tensor, shape (*weight_shape)
            The parameter; gives shape, dtype and device.
        name : str
            Its name within its module, for example ``"weight"``.
        module : Module or None
            The module it belongs to.

        Returns
        -------
        Distribution
            Event shape ``weight_shape``, empty batch shape.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return the prior as a short formula, for tables and files."""


def _refuse_pyros_order(kind: type, numbers: tuple[float, ...]) -> None:
    """Raise where two numbers stand without their names: Pyro would take the first for the mean."""
    if len(numbers) > 1:
        first, second = numbers[:2]
        raise PriorError(
            f"Two numbers of a prior need their names, but {kind.__name__}({first}, {second}) has none. Pyro's "
            f"distribution of that name is {kind.__name__}(scale={second}, loc={first}) here."
        )


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PriorError(f"{name} of a prior must be a positive finite number, but is {value}. Pass for example 1.0.")


def _finite(loc: float) -> None:
    if not math.isfinite(loc):
        raise PriorError(f"loc of a prior must be finite, but is {loc}. Pass for example 0.0.")


def _full(value: float, parameter: torch.Tensor) -> torch.Tensor:
    return torch.full((), value, dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)


@dataclass(frozen=True)
class Normal(Prior):
    """Independent Normal prior, the same for every weight: N(`loc`, `scale` ²).

    Parameters
    ----------
    scale : float
        Standard deviation, in units of the weight.
    loc : float
        Mean, in units of the weight.

    Raises
    ------
    PriorError
        If `scale` is not positive and finite, `loc` is not finite, or both are given without their names: Pyro's
        order is the other one.
    """

    scale: float = 1.0
    loc: float = 0.0

    def __new__(cls, *numbers: float, **named: float) -> Self:
        """Refuse two numbers without names."""
        _refuse_pyros_order(cls, numbers)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        _finite(self.loc)

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        return dist.Normal(_full(self.loc, parameter), _full(self.scale, parameter)).to_event(parameter.dim())

    @override
    def describe(self) -> str:
        return f"Normal({self.loc:g}, {self.scale:g})"


@dataclass(frozen=True)
class FanInNormal(Prior):
    """Normal prior whose variance falls with the number of inputs: weights N(0, gain / (fan_in · mean square)).

    The prior over functions then has the same scale at every width, so that layers of different size can be compared.
    He et al. derive the variance 2 / fan_in for inputs of mean square 1; a first layer on images whose pixels lie in
    0 … 1 sees much less, and `input_mean_square` says so. Biases get N(0, 1). The weights of a normalisation layer
    multiply a normalised input and get N(1, 1).

    Parameters
    ----------
    gain : float
        Numerator of the variance; 2 keeps the scale through ReLU layers.
    input_mean_square : float
        Mean of the squares of the layer's inputs; 1 for all but a first layer on unscaled data.

    Raises
    ------
    PriorError
        If a parameter is not positive and finite.

    Examples
    --------
    >>> first = {"fc1.weight": FanInNormal(input_mean_square=0.112), "*": FanInNormal()}  # MNIST, pixels 0 … 1
    """

    gain: float = 2.0
    input_mean_square: float = 1.0

    def __post_init__(self) -> None:
        _positive("gain", self.gain)
        _positive("input_mean_square", self.input_mean_square)

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        loc, scale = 0.0, 1.0
        if parameter.dim() >= 2:
            scale = math.sqrt(self.gain / (fan_in(parameter) * self.input_mean_square))
        elif name == "weight" and isinstance(module, NORMALISATION):
            loc = 1.0
        return dist.Normal(_full(loc, parameter), _full(scale, parameter)).to_event(parameter.dim())

    @override
    def describe(self) -> str:
        inputs = "fan_in" if self.input_mean_square == 1 else f"(fan_in·{self.input_mean_square:g})"
        return f"FanInNormal(weights N(0, {self.gain:g}/{inputs}), biases N(0, 1))"


@dataclass(frozen=True)
class Laplace(Prior):
    """Independent double-exponential prior with density exp(−|w − loc| / scale) / (2 scale).

    Parameters
    ----------
    scale : float
        Scale b, in units of the weight; the standard deviation is b √2.
    loc : float
        Mean, in units of the weight.

    Raises
    ------
    PriorError
        If `scale` is not positive and finite, `loc` is not finite, or both are given without their names: Pyro's
        order is the other one.
    """

    scale: float = 1.0
    loc: float = 0.0

    def __new__(cls, *numbers: float, **named: float) -> Self:
        """Refuse two numbers without names."""
        _refuse_pyros_order(cls, numbers)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        _finite(self.loc)

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        return dist.Laplace(_full(self.loc, parameter), _full(self.scale, parameter)).to_event(parameter.dim())

    @override
    def describe(self) -> str:
        return f"Laplace({self.loc:g}, {self.scale:g})"


def match_priors(prior: Prior | Mapping[str, Prior | None], names: list[str]) -> dict[str, Prior]:
    """Return the prior of each parameter that has one; the first pattern that matches a name wins.

    Parameters
    ----------
    prior : Prior, or mapping of pattern to Prior or None
        Patterns are shell-style (``"fc*"``) and match whole parameter names. ``None``, or no match, leaves a parameter
        without a prior: it stays a point estimate.
    names : list of str
        Names of all parameters, for example ``"fc1.weight"``.

    Returns
    -------
    dict of str to Prior

    Raises
    ------
    PriorError
        If a value is no prior, a pattern matches nothing, or no parameter gets a prior.
    """
    rules = dict(prior) if isinstance(prior, Mapping) else {"*": prior}
    for pattern, rule in rules.items():
        if rule is not None and not isinstance(rule, Prior):
            raise PriorError(_no_prior(pattern, rule))
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PriorError(f"The prior pattern '{pattern}' matches no parameter. {near_matches(pattern, names)}")
    chosen: dict[str, Prior] = {}
    for name in names:
        rule = next((rule for pattern, rule in rules.items() if fnmatchcase(name, pattern)), None)
        if rule is not None:
            chosen[name] = rule
    if not chosen:
        raise PriorError(
            "At least one parameter needs a prior, but all are left as point estimates. "
            "Give a prior to some, for example prior={'*': FanInNormal()}."
        )
    return chosen


def _no_prior(pattern: str, rule: object) -> str:
    """Say what stands where a prior should, and what to write there."""
    package, kind = type(rule).__module__.partition(".")[0], type(rule).__name__
    known = ["Normal", "FanInNormal", "Laplace", "ScaleMixtureNormal", "NormalMixture", "Centred"]
    todo = f"Take one of wiu_pyro.nn. {near_matches(rule.capitalize() if isinstance(rule, str) else kind, known)}"
    if isinstance(rule, type):
        package, todo = "builtins", f"Make one of it: {rule.__name__}(...)."
    elif isinstance(rule, int | float):
        todo = f"For this standard deviation pass wiu_pyro.nn.Normal(scale={rule})."
    return (
        f"The prior for '{pattern}' must be a wiu_pyro.nn prior or None, but is {a_name(rule)}"
        f"{'' if package == 'builtins' else f' of {package}'}. {todo}"
    )
