"""How each kind of layer enters the curvature: which inputs and output gradients make up its Jacobian."""

from wiu_pyro.curvature.rules.base import MAX_ELEMENTS, LayerRule
from wiu_pyro.curvature.rules.choose import rule_for
from wiu_pyro.curvature.rules.convolution import Conv2dRule
from wiu_pyro.curvature.rules.direct import DirectRule
from wiu_pyro.curvature.rules.matrix import LinearRule, MatrixRule
from wiu_pyro.curvature.rules.normalisation import AffineRule

__all__ = [
    "MAX_ELEMENTS",
    "AffineRule",
    "Conv2dRule",
    "DirectRule",
    "LayerRule",
    "LinearRule",
    "MatrixRule",
    "rule_for",
]
