"""Curvature of a network's loss at given weights, in torch: GGN, Fisher and Hessian; diagonal, Kronecker, full."""

from wiu_pyro.curvature.capture import CapturedBatch, CurvaturePass, capture_layers, refuse_training_mode
from wiu_pyro.curvature.likelihood import (
    CURVATURE_KINDS,
    BernoulliOutput,
    CategoricalOutput,
    NormalOutput,
    OutputLikelihood,
    read,
)
from wiu_pyro.curvature.rules import LayerRule, MatrixRule, rule_for, supported_layers
from wiu_pyro.curvature.structures import DiagonalCurvature, FullCurvature, KroneckerFactors, hessian

__all__ = [
    "CURVATURE_KINDS",
    "BernoulliOutput",
    "CapturedBatch",
    "CategoricalOutput",
    "CurvaturePass",
    "DiagonalCurvature",
    "FullCurvature",
    "KroneckerFactors",
    "LayerRule",
    "MatrixRule",
    "NormalOutput",
    "OutputLikelihood",
    "capture_layers",
    "hessian",
    "read",
    "refuse_training_mode",
    "rule_for",
    "supported_layers",
]
