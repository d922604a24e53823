"""Which rule a layer gets."""

from __future__ import annotations

from torch import nn

from wiu_pyro.curvature.rules.base import LayerRule
from wiu_pyro.curvature.rules.convolution import Conv2dRule, ConvRule, ConvTransposeRule
from wiu_pyro.curvature.rules.direct import DirectRule
from wiu_pyro.curvature.rules.embedding import EmbeddingRule
from wiu_pyro.curvature.rules.matrix import LinearRule
from wiu_pyro.curvature.rules.normalisation import AffineRule

__all__ = ["rule_for"]

RULES: dict[type[nn.Module], type[LayerRule]] = {
    nn.Linear: LinearRule,
    nn.Conv1d: ConvRule,
    nn.Conv2d: Conv2dRule,
    nn.Conv3d: ConvRule,
    nn.ConvTranspose1d: ConvTransposeRule,
    nn.ConvTranspose2d: ConvTransposeRule,
    nn.ConvTranspose3d: ConvTransposeRule,
    nn.BatchNorm1d: AffineRule,
    nn.BatchNorm2d: AffineRule,
    nn.BatchNorm3d: AffineRule,
    nn.InstanceNorm1d: AffineRule,
    nn.InstanceNorm2d: AffineRule,
    nn.InstanceNorm3d: AffineRule,
    nn.LayerNorm: AffineRule,
    nn.RMSNorm: AffineRule,
    nn.GroupNorm: AffineRule,
    nn.Embedding: EmbeddingRule,
}


def rule_for(module: nn.Module | None, shapes: dict[str, tuple[int, ...]]) -> LayerRule:
    """Return the rule of a layer.

    Parameters
    ----------
    module : Module or None
    shapes : dict of str to tuple of int
        Its parameters with a posterior.

    Returns
    -------
    LayerRule
        That of its type; a `DirectRule` for a type without one, or parameters that the type does not know.
    """
    for kind, rule in RULES.items():
        if isinstance(module, kind) and set(shapes) <= {"weight", "bias"}:
            return rule(module, shapes)
    return DirectRule(module, shapes)
