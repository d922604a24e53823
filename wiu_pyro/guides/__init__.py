"""Posterior approximations, one per file; each is a Pyro AutoGuide."""

from wiu_pyro.guides.block_normal import AutoBlockNormal, CurvatureRecord
from wiu_pyro.guides.closed_form import ClosedForm, closed_form
from wiu_pyro.guides.cost import Cost, LayerCost
from wiu_pyro.guides.dropout import AutoMCDropout
from wiu_pyro.guides.ensemble import AutoEnsemble
from wiu_pyro.guides.estimators import flipout, local_reparameterization, reparameterization
from wiu_pyro.guides.evidence import log_marginal_likelihood
from wiu_pyro.guides.ivon import AutoIVON
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.guides.laplace_block import AutoBlockDiagonalLaplace
from wiu_pyro.guides.laplace_diagonal import AutoDiagonalLaplace
from wiu_pyro.guides.laplace_ekfac import AutoEKFACLaplace
from wiu_pyro.guides.laplace_full import AutoFullLaplace
from wiu_pyro.guides.laplace_kfac import AutoKFACLaplace
from wiu_pyro.guides.laplace_last import AutoLastLayerLaplace
from wiu_pyro.guides.laplace_layers import AutoLaplace
from wiu_pyro.guides.laplace_subnetwork import AutoSubnetworkLaplace
from wiu_pyro.guides.log_uniform_kl import log_uniform_kl
from wiu_pyro.guides.low_rank import AutoLowRank
from wiu_pyro.guides.matrix_normal import AutoMatrixNormal
from wiu_pyro.guides.mean_field import AutoMeanField
from wiu_pyro.guides.point_estimate import AutoPointEstimate
from wiu_pyro.guides.prior_scales import PriorRecord, PriorTuning
from wiu_pyro.guides.prior_tuning import tune_prior
from wiu_pyro.guides.registry import by_name, known_guides
from wiu_pyro.guides.sparse_dropout import AutoSparseVariationalDropout
from wiu_pyro.guides.start import init_to_network
from wiu_pyro.guides.swag import AutoSWAG

__all__ = [
    "AutoBlockDiagonalLaplace",
    "AutoBlockNormal",
    "AutoDiagonalLaplace",
    "AutoEKFACLaplace",
    "AutoEnsemble",
    "AutoFullLaplace",
    "AutoIVON",
    "AutoKFACLaplace",
    "AutoLaplace",
    "AutoLastLayerLaplace",
    "AutoLowRank",
    "AutoMCDropout",
    "AutoMatrixNormal",
    "AutoMeanField",
    "AutoPointEstimate",
    "AutoSWAG",
    "AutoSparseVariationalDropout",
    "AutoSubnetworkLaplace",
    "ClosedForm",
    "Cost",
    "CurvatureRecord",
    "LaplaceGuide",
    "LayerCost",
    "PriorRecord",
    "PriorTuning",
    "by_name",
    "closed_form",
    "flipout",
    "init_to_network",
    "known_guides",
    "local_reparameterization",
    "log_marginal_likelihood",
    "log_uniform_kl",
    "reparameterization",
    "tune_prior",
]
