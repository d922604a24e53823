"""Priors that are mixtures of Normals: a spike of small weights, and weights as large as the data ask for.

`ScaleMixtureNormal` is the prior of Blundell et al. (2015, eq. 7); `NormalMixture` has any number of components, whose
scales can reach over orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import pyro.distributions as dist
import torch
from torch import nn
from typing_extensions import override

from wiu_pyro.errors import PriorError
from wiu_pyro.nn.priors import Prior, _positive

__all__ = ["NormalMixture", "ScaleMixtureNormal"]

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class _RealMixture(dist.MixtureSameFamily):
    """A mixture over the whole line that says so: torch's own support is one that Pyro cannot transform."""

    support = torch.distributions.constraints.real

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log density; of Normals one after the other, which is several times faster than stacked."""
        components = self.component_distribution
        if type(components) is not dist.Normal:
            return super().log_prob(value)
        weights = _collapsed(self.mixture_distribution.probs)
        parts = (components.loc, components.scale, weights.log())
        terms = []
        for loc, scale, log_weight in zip(*(_collapsed(part).unbind(-1) for part in parts), strict=True):
            deviation = value - loc
            terms.append(deviation * deviation * (-0.5 / scale.square()) + (log_weight - scale.log()))
        return reduce(torch.logaddexp, terms) - HALF_LOG_TWO_PI


def _collapsed(values: torch.Tensor) -> torch.Tensor:
    """Return a tensor that is one row repeated, by `expand`, as that row alone."""
    return values[(0,) * (values.dim() - 1)] if not any(values.stride()[:-1]) else values


def _mixture(parameter: torch.Tensor, scales: Sequence[float], weights: Sequence[float]) -> dist.Distribution:
    """Return the mixture of zero-mean Normals for each entry of a parameter."""
    probs = parameter.new_tensor(weights).expand(*parameter.shape, len(weights))
    sds = parameter.new_tensor(scales).expand(*parameter.shape, len(scales))
    mixture = _RealMixture(dist.Categorical(probs), dist.Normal(torch.zeros_like(sds), sds))
    return mixture.to_event(parameter.dim())


@dataclass(frozen=True)
class ScaleMixtureNormal(Prior):
    """Mixture of two zero-mean Normals, one wide and one narrow, for each weight on its own.

    Parameters
    ----------
    wide, narrow : float
        The two standard deviations, in units of the weight.
    weight_wide : float
        Probability of the wide one, strictly between 0 and 1.

    Raises
    ------
    PriorError
        If a scale is not positive and finite, the wide one is not the larger, or the probability is outside (0, 1).

    References
    ----------
    .. [1] Blundell et al. (2015), Weight Uncertainty in Neural Networks, eq. 7.
    """

    wide: float = 1.0
    narrow: float = 0.0025
    weight_wide: float = 0.25

    def __post_init__(self) -> None:
        _positive("wide", self.wide)
        _positive("narrow", self.narrow)
        if self.narrow >= self.wide:
            raise PriorError(
                f"wide must be larger than narrow, but they are {self.wide} and {self.narrow}. Exchange them, and "
                "remember that weight_wide is the wide one's probability."
            )
        if not 0 < self.weight_wide < 1:
            raise PriorError(
                f"weight_wide must lie strictly between 0 and 1, but is {self.weight_wide}. Pass for example 0.25."
            )

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        return _mixture(parameter, (self.wide, self.narrow), (self.weight_wide, 1 - self.weight_wide))

    @override
    def describe(self) -> str:
        return f"{self.weight_wide:g} N(0, {self.wide:g}²) + {1 - self.weight_wide:g} N(0, {self.narrow:g}²)"


@dataclass(frozen=True)
class NormalMixture(Prior):
    """Mixture of zero-mean Normals of several scales, for each weight on its own.

    Parameters
    ----------
    scales : tuple of float
        Standard deviations, in units of the weight; at least one.
    weights : tuple of float, optional
        Probability of each, in their order; all the same when None.

    Raises
    ------
    PriorError
        If a scale is not positive and finite, or the probabilities are not as many and positive, or do not add up
        to 1.

    Examples
    --------
    >>> NormalMixture((1.0, 0.1, 0.01)).describe()
    '0.333 N(0, 1²) + 0.333 N(0, 0.1²) + 0.333 N(0, 0.01²)'
    """

    scales: tuple[float, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales:
            raise PriorError("A mixture needs at least one scale, but scales is empty. Pass for example (1.0, 0.01).")
        for number, scale in enumerate(self.scales):
            _positive(f"scales[{number}]", scale)
        if self.weights is None:
            return
        object.__setattr__(self, "weights", tuple(self.weights))
        whole = math.isclose(math.fsum(self.weights), 1.0, abs_tol=1e-6)
        if len(self.weights) != len(self.scales) or not all(weight > 0 for weight in self.weights) or not whole:
            raise PriorError(
                f"A mixture of {len(self.scales)} scales needs as many positive weights that add up to 1, but they are "
                f"{self.weights}. Leave them out for the same for all."
            )

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each scale."""
        return self.weights or (1 / len(self.scales),) * len(self.scales)

    @override
    def distribution(self, parameter: torch.Tensor, *, name: str, module: nn.Module | None) -> dist.Distribution:
        return _mixture(parameter, self.scales, self.probabilities)

    @override
    def describe(self) -> str:
        parts = zip(self.probabilities, self.scales, strict=True)
        return " + ".join(f"{weight:.3g} N(0, {scale:g}²)" for weight, scale in parts)
