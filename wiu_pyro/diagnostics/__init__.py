"""Where is the uncertainty: one question per file, answered from a saved posterior without the network.

Every name in `__all__` is a function ``(idata, ...) -> xarray.Dataset`` that works on what `wiu_pyro.load` returns, on
both ArviZ lines (`agreement` and `compare` take several posteriors). `layer_statement` and `to_dataframe` turn the
layer table into a sentence and a pandas table; `agreed_pairs_statement`, `agreement_statement`, `between_statement`,
`convergence_statement`, `identification_statement`, `last_layer_statement`, `magnitude_statement`,
`pruning_statement`, `stochastic_layers_statement` and `within_statement` say what was found.
"""

from wiu_pyro.diagnostics.agreed_pairs import agreed_pairs_statement as agreed_pairs_statement
from wiu_pyro.diagnostics.agreement import agreement
from wiu_pyro.diagnostics.agreement_statement import agreement_statement as agreement_statement
from wiu_pyro.diagnostics.between_layers import between_layers
from wiu_pyro.diagnostics.between_statement import between_statement as between_statement
from wiu_pyro.diagnostics.compare import compare
from wiu_pyro.diagnostics.convergence import convergence
from wiu_pyro.diagnostics.convergence_statement import convergence_statement as convergence_statement
from wiu_pyro.diagnostics.evolution import evolution
from wiu_pyro.diagnostics.identification import identification
from wiu_pyro.diagnostics.identification_statement import identification_statement as identification_statement
from wiu_pyro.diagnostics.input_map import input_map
from wiu_pyro.diagnostics.layer_uncertainty import layer_uncertainty
from wiu_pyro.diagnostics.magnitude import magnitude
from wiu_pyro.diagnostics.magnitude_statement import magnitude_statement as magnitude_statement
from wiu_pyro.diagnostics.predictive import predictive
from wiu_pyro.diagnostics.provenance import convergence_note as convergence_note
from wiu_pyro.diagnostics.pruning_statement import pruning_statement as pruning_statement
from wiu_pyro.diagnostics.statement import layer_statement as layer_statement
from wiu_pyro.diagnostics.stochastic_layers_statement import (
    last_layer_statement as last_layer_statement,
)
from wiu_pyro.diagnostics.stochastic_layers_statement import (
    stochastic_layers_statement as stochastic_layers_statement,
)
from wiu_pyro.diagnostics.table import to_dataframe as to_dataframe
from wiu_pyro.diagnostics.training_loss import training_loss
from wiu_pyro.diagnostics.weight_distribution import weight_distribution
from wiu_pyro.diagnostics.weight_map import weight_map
from wiu_pyro.diagnostics.within_layer import within_layer
from wiu_pyro.diagnostics.within_statement import within_statement as within_statement

__all__ = [
    "agreement",
    "between_layers",
    "compare",
    "convergence",
    "evolution",
    "identification",
    "input_map",
    "layer_uncertainty",
    "magnitude",
    "predictive",
    "training_loss",
    "weight_distribution",
    "weight_map",
    "within_layer",
]
