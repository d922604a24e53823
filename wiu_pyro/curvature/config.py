"""The settings of a curvature, read from a guide's options and checked: one place for all Laplace guides.

A new setting is one field of `CurvatureConfig` with its check in `__post_init__`; every guide then takes it by name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from wiu_pyro.curvature.likelihood import CURVATURE_KINDS
from wiu_pyro.errors import GuideError, near_matches

__all__ = ["CurvatureConfig", "read_curvature_config"]

WEIGHT_SHARING = ("expand", "reduce")
WIDE = ("diagonal", "kfac", "error")
ZERO_CURVATURE = ("error", "prior")
PRIOR = "The model has the prior, as an sd: BayesianNetwork(net, prior=Normal(scale=1.0))."
ELSEWHERE = {  # options of other Laplace libraries, and where they are here
    "backend": "There is only one; leave it out.",
    "hessian_structure": 'Each has a guide, or use AutoLaplace(model, structure="kfac").',
    "likelihood": 'The model has the likelihood: BayesianNetwork(net, likelihood="categorical").',
    "prior_mean": PRIOR,
    "prior_precision": PRIOR,
    "sigma_noise": 'The model has the noise: BayesianNetwork(net, likelihood="normal", noise_scale=1.0).',
    "subset_of_weights": "Use AutoLastLayerLaplace, AutoSubnetworkLaplace, or AutoFullLaplace(model, layers=...).",
}


@dataclass(frozen=True)
class CurvatureConfig:
    """What a curvature is to be, and what it may take.

    Attributes
    ----------
    curvature : {"ggn", "fisher_mc", "fisher_empirical", "hessian"}
        The exact generalised Gauss-Newton matrix; the Fisher by sampled labels; the empirical Fisher; for a full
        matrix, the exact Hessian.
    num_fisher_samples : int
        Labels drawn per datum, for ``"fisher_mc"``; their seed comes from torch's global random state, which
        `wiu_pyro.fit` seeds.
    column_tolerance : float
        For ``"ggn"``: what may be left out of each layer's gradients, as a part of their squared norm summed over the
        data, which is the relative error of the gradient factor in trace norm (under ``"expand"``; other factors and
        structures weigh the same gradients otherwise). A target, not a bound: it is measured on the first batch and
        one in 16, other batches are held against these by their outputs, and a warning says where it was more. Of a
        trained classifier it saves much: 1e-3 needs 2 to 4 of 10 columns. 0 leaves nothing out, and is the only one
        called exact; above it the curvature is called ``"ggn_truncated"``.
    weight_sharing : {"expand", "reduce"}
        For Kronecker factors of layers used at several positions, a convolution's pixels for example: see
        `KroneckerFactors`.
    wide : {"diagonal", "kfac", "error"}
        For a layer of Kronecker factors with a side above `max_factor_side`: its exact diagonal instead, with a
        warning; the factors all the same; or a `CostError`.
    max_factor_side : int
        Rows of the largest Kronecker factor. Memory grows with its square (10,000: 0.4 GB in float32, and 3 GB while
        it is decomposed), the time of its decomposition with its third power (10,000: minutes on a few cores).
    max_bytes : int or None
        Memory the posterior may take; 90 % of what the device has free when None.
    zero_curvature : {"error", "prior"}
        For a layer to which only zero gradients come back: a `CurvatureError`; or its prior as its posterior, with a
        warning.

    Raises
    ------
    GuideError
        If a word is unknown or a number is not positive.
    """

    curvature: str = "ggn"
    num_fisher_samples: int = 1
    column_tolerance: float = 0.0
    weight_sharing: str = "expand"
    wide: str = "diagonal"
    max_factor_side: int = 10_000
    max_bytes: int | None = None
    zero_curvature: str = "error"

    def __post_init__(self) -> None:
        for name, known in (("weight_sharing", WEIGHT_SHARING), ("wide", WIDE), ("zero_curvature", ZERO_CURVATURE)):
            value = getattr(self, name)
            if value not in known:
                raise GuideError(f"Unknown {name} '{value}'. {near_matches(str(value), known)}")
        for name in ("num_fisher_samples", "max_factor_side", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise GuideError(f"{name} must be at least 1, but is {value}. Pass 1 or more.")

        if not 0 <= self.column_tolerance < 1:
            raise GuideError(
                f"column_tolerance must be at least 0 and below 1, but is {self.column_tolerance}. 0 is exact."
            )
        if self.column_tolerance and self.curvature != "ggn":
            raise GuideError(
                f"column_tolerance leaves out columns of the GGN, but the curvature is '{self.curvature}'. "
                "Leave one of them out."
            )

    @property
    def kind(self) -> str:
        """What the curvature is called: ``"ggn_truncated"`` with a tolerance."""
        return "ggn_truncated" if self.column_tolerance else self.curvature

    def described(self) -> dict[str, Any]:
        """Return the settings that decide the result, as plain values: what a stopped pass must have in common."""
        return {name: value for name, value in asdict(self).items() if name != "max_bytes"}


def read_curvature_config(
    guide: str, options: dict[str, Any], *, kinds: tuple[str, ...] = CURVATURE_KINDS
) -> CurvatureConfig:
    """Return the settings among a guide's options, or raise GuideError with the option that is wrong.

    Parameters
    ----------
    guide : str
        The guide's class, for messages.
    options : dict
        By the names of `CurvatureConfig`.
    kinds : tuple of str
        The curvatures this guide knows.

    Returns
    -------
    CurvatureConfig

    Raises
    ------
    GuideError
        If an option is unknown, or its value is.

    Examples
    --------
    >>> read_curvature_config("AutoKFACLaplace", {"curvature": "fisher_mc"}).num_fisher_samples
    1
    """
    known = [item.name for item in fields(CurvatureConfig)]
    for name in options:
        if name not in known:
            raise GuideError(f"{guide} has no option '{name}'. {ELSEWHERE.get(name) or near_matches(name, known)}")
    config = CurvatureConfig(**options)
    if config.curvature not in kinds:
        other = " The exact Hessian is for AutoFullLaplace and AutoBlockDiagonalLaplace."
        hint = near_matches(config.curvature, kinds) + other * (config.curvature == "hessian")
        raise GuideError(f"{guide} has no curvature '{config.curvature}'. {hint}")
    return config
