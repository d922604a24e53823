"""Fit a guide, draw weights from it, and predict."""

from wiu_pyro.infer.config import FitConfig
from wiu_pyro.infer.convergence import Convergence, assess
from wiu_pyro.infer.draws import draw_weights
from wiu_pyro.infer.fit import Fit, fit
from wiu_pyro.infer.functional import FunctionalBatch, functional_distribution
from wiu_pyro.infer.predict import Predictions, predict

__all__ = [
    "Convergence",
    "Fit",
    "FitConfig",
    "FunctionalBatch",
    "Predictions",
    "assess",
    "draw_weights",
    "fit",
    "functional_distribution",
    "predict",
]
