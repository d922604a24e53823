"""Fit a guide, draw weights from it, and predict."""

from wiu_pyro.infer.averaged_curvature import average_curvature
from wiu_pyro.infer.config import FitConfig
from wiu_pyro.infer.convergence import Convergence, assess
from wiu_pyro.infer.cross_validation import cross_validate_prior
from wiu_pyro.infer.draws import draw_weights
from wiu_pyro.infer.ensemble import ensemble_of
from wiu_pyro.infer.fit import fit
from wiu_pyro.infer.functional import FunctionalBatch, functional_distribution
from wiu_pyro.infer.predict import Predictions, predict
from wiu_pyro.infer.result import Fit
from wiu_pyro.infer.sampled import SampledPosterior
from wiu_pyro.infer.track import Track, TrackConfig

__all__ = [
    "Convergence",
    "Fit",
    "FitConfig",
    "FunctionalBatch",
    "Predictions",
    "SampledPosterior",
    "Track",
    "TrackConfig",
    "assess",
    "average_curvature",
    "cross_validate_prior",
    "draw_weights",
    "ensemble_of",
    "fit",
    "functional_distribution",
    "predict",
]
