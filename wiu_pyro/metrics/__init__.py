"""Numbers from NumPy arrays: what a weight's posterior says, and how good predictions are.

One topic per module. Every function takes arrays and returns floats, arrays or a small frozen dataclass; none knows of
files, layers or torch.
"""

from wiu_pyro.metrics.calibration import Reliability, ece, reliability
from wiu_pyro.metrics.contraction import contraction, effective_parameters
from wiu_pyro.metrics.decline import RiskCoverage, decline_order, risk_coverage
from wiu_pyro.metrics.detection import auroc
from wiu_pyro.metrics.divergence import kl_normal
from wiu_pyro.metrics.information import EntropyParts, entropy, entropy_parts
from wiu_pyro.metrics.scores import accuracy, brier, brier_pointwise, correct, nll, nll_pointwise
from wiu_pyro.metrics.signal_to_noise import signal_to_noise
from wiu_pyro.metrics.standard_error import Estimate, mean_with_se, sum_with_se

__all__ = [
    "EntropyParts",
    "Estimate",
    "Reliability",
    "RiskCoverage",
    "accuracy",
    "auroc",
    "brier",
    "brier_pointwise",
    "contraction",
    "correct",
    "decline_order",
    "ece",
    "effective_parameters",
    "entropy",
    "entropy_parts",
    "kl_normal",
    "mean_with_se",
    "nll",
    "nll_pointwise",
    "reliability",
    "risk_coverage",
    "signal_to_noise",
    "sum_with_se",
]
