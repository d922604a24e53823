"""What changes when part of a posterior is changed: weights removed, layers made deterministic.

Model, posterior and data in, an `xarray.Dataset` out, which the plots and the report read without them.
"""

from wiu_pyro.interventions.config import PruneConfig
from wiu_pyro.interventions.criteria import CRITERIA, Criterion
from wiu_pyro.interventions.prune import prune
from wiu_pyro.interventions.pruned_module import pruned_module, pruned_weights
from wiu_pyro.interventions.stochastic_config import StochasticLayersConfig
from wiu_pyro.interventions.stochastic_layers import stochastic_layers

__all__ = [
    "CRITERIA",
    "Criterion",
    "PruneConfig",
    "StochasticLayersConfig",
    "prune",
    "pruned_module",
    "pruned_weights",
    "stochastic_layers",
]
