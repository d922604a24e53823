"""Numbers from NumPy arrays: what a weight's posterior says, and how good predictions are.

One topic per module. Every function takes arrays and returns floats, arrays or a small frozen dataclass; none knows of
files, layers or torch.
"""

from wiu_pyro.metrics.calibration import Reliability, ece, ece_resampled, reliability
from wiu_pyro.metrics.contraction import contraction, effective_parameters
from wiu_pyro.metrics.decline import RiskCoverage, decline_order, risk_coverage
from wiu_pyro.metrics.detection import auroc, auroc_placements
from wiu_pyro.metrics.divergence import kl_normal
from wiu_pyro.metrics.effect_size import cliffs_delta, quantile_grid, wasserstein
from wiu_pyro.metrics.inequality import evenness, gini
from wiu_pyro.metrics.information import EntropyParts, entropy, entropy_parts
from wiu_pyro.metrics.layer_figures import layer_figures
from wiu_pyro.metrics.paired_proportions import paired_score, paired_share_interval
from wiu_pyro.metrics.replicates import FEWEST_SEEDS, num_replicates
from wiu_pyro.metrics.scores import accuracy, brier, brier_pointwise, correct, nll, nll_pointwise
from wiu_pyro.metrics.settling import Stop, distance_from_end, early_stop, noisy_copies, settled_from
from wiu_pyro.metrics.signal_to_noise import signal_to_noise
from wiu_pyro.metrics.simultaneous import Intervals, bootstrap_intervals, student_intervals
from wiu_pyro.metrics.spectrum import effective_rank, participation_ratio
from wiu_pyro.metrics.standard_error import Estimate, mean_with_se, sum_with_se
from wiu_pyro.metrics.two_way import crossed_shares, pigeonhole_counts, pigeonhole_sums
from wiu_pyro.metrics.variance_effects import (
    Effects,
    path_effects,
    pick_freeze_costs,
    subset_effects,
    variance_shares,
)

__all__ = [
    "FEWEST_SEEDS",
    "Effects",
    "EntropyParts",
    "Estimate",
    "Intervals",
    "Reliability",
    "RiskCoverage",
    "Stop",
    "accuracy",
    "auroc",
    "auroc_placements",
    "bootstrap_intervals",
    "brier",
    "brier_pointwise",
    "cliffs_delta",
    "contraction",
    "correct",
    "crossed_shares",
    "decline_order",
    "distance_from_end",
    "early_stop",
    "ece",
    "ece_resampled",
    "effective_parameters",
    "effective_rank",
    "entropy",
    "entropy_parts",
    "evenness",
    "gini",
    "kl_normal",
    "layer_figures",
    "mean_with_se",
    "nll",
    "nll_pointwise",
    "noisy_copies",
    "num_replicates",
    "paired_score",
    "paired_share_interval",
    "participation_ratio",
    "path_effects",
    "pick_freeze_costs",
    "pigeonhole_counts",
    "pigeonhole_sums",
    "quantile_grid",
    "reliability",
    "risk_coverage",
    "settled_from",
    "signal_to_noise",
    "student_intervals",
    "subset_effects",
    "sum_with_se",
    "variance_shares",
    "wasserstein",
]
