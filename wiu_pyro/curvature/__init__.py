"""Curvature of a network's loss at given weights, in torch: GGN, Fisher and Hessian; diagonal, Kronecker, full."""

from wiu_pyro.curvature.accumulate import DataStream, accumulate
from wiu_pyro.curvature.accumulated import Accumulated, Totals
from wiu_pyro.curvature.backward import Columns, HessianColumns, Portions
from wiu_pyro.curvature.capture import CurvaturePass, refuse_training_mode
from wiu_pyro.curvature.checkpoint import Checkpoint, fingerprint
from wiu_pyro.curvature.config import CurvatureConfig, read_curvature_config
from wiu_pyro.curvature.diagonal import DiagonalCurvature
from wiu_pyro.curvature.direct import direct_layers
from wiu_pyro.curvature.ekfac import EigenvalueCorrectedFactors
from wiu_pyro.curvature.first_look import layers_to_differentiate
from wiu_pyro.curvature.full import FullCurvature, FullLayerCurvature
from wiu_pyro.curvature.hessian import HessianSum, hessian
from wiu_pyro.curvature.kronecker import KroneckerFactors
from wiu_pyro.curvature.layer_curvature import LayerCurvature
from wiu_pyro.curvature.layer_record import CapturedBatch
from wiu_pyro.curvature.likelihood import (
    CURVATURE_KINDS,
    BernoulliOutput,
    CategoricalOutput,
    NormalOutput,
    OutputLikelihood,
    read,
    refuse_masks,
)
from wiu_pyro.curvature.memory import available_bytes, bytes_in_words
from wiu_pyro.curvature.processes import Processes
from wiu_pyro.curvature.rules import DirectRule, LayerRule, MatrixRule, rule_for
from wiu_pyro.curvature.truncation import ColumnTruncation

STRUCTURES: dict[str, type[LayerCurvature]] = {
    kind.structure: kind
    for kind in (KroneckerFactors, EigenvalueCorrectedFactors, DiagonalCurvature, FullLayerCurvature)
}

__all__ = [
    "CURVATURE_KINDS",
    "STRUCTURES",
    "Accumulated",
    "BernoulliOutput",
    "CapturedBatch",
    "CategoricalOutput",
    "Checkpoint",
    "ColumnTruncation",
    "Columns",
    "CurvatureConfig",
    "CurvaturePass",
    "DataStream",
    "DiagonalCurvature",
    "DirectRule",
    "EigenvalueCorrectedFactors",
    "FullCurvature",
    "FullLayerCurvature",
    "HessianColumns",
    "HessianSum",
    "KroneckerFactors",
    "LayerCurvature",
    "LayerRule",
    "MatrixRule",
    "NormalOutput",
    "OutputLikelihood",
    "Portions",
    "Processes",
    "Totals",
    "accumulate",
    "available_bytes",
    "bytes_in_words",
    "direct_layers",
    "fingerprint",
    "hessian",
    "layers_to_differentiate",
    "read",
    "read_curvature_config",
    "refuse_masks",
    "refuse_training_mode",
    "rule_for",
]
