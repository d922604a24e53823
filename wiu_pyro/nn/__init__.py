"""Networks as Pyro models: priors, likelihoods, and what a model consists of."""

from wiu_pyro.nn.batches import Batches, as_batches
from wiu_pyro.nn.centred_prior import Centred
from wiu_pyro.nn.describe import base_distribution, describe_prior, is_normal
from wiu_pyro.nn.fresh import fresh_weights
from wiu_pyro.nn.log_uniform import LogUniform, is_improper
from wiu_pyro.nn.mixture_priors import NormalMixture, ScaleMixtureNormal
from wiu_pyro.nn.network import BayesianNetwork, complete_num_data
from wiu_pyro.nn.numbered import count_batches, numbered_batches
from wiu_pyro.nn.other_prior import under_prior
from wiu_pyro.nn.prior_moments import prior_moments
from wiu_pyro.nn.priors import FanInNormal, Laplace, Normal, Prior
from wiu_pyro.nn.running import run_at
from wiu_pyro.nn.structure import (
    Layer,
    ModelStructure,
    evaluation_mode,
    inspect_model,
    weight_module,
)
from wiu_pyro.nn.unsampled import holding, put_unsampled, unsampled

__all__ = [
    "Batches",
    "BayesianNetwork",
    "Centred",
    "FanInNormal",
    "Laplace",
    "Layer",
    "LogUniform",
    "ModelStructure",
    "Normal",
    "NormalMixture",
    "Prior",
    "ScaleMixtureNormal",
    "as_batches",
    "base_distribution",
    "complete_num_data",
    "count_batches",
    "describe_prior",
    "evaluation_mode",
    "fresh_weights",
    "holding",
    "inspect_model",
    "is_improper",
    "is_normal",
    "numbered_batches",
    "prior_moments",
    "put_unsampled",
    "run_at",
    "under_prior",
    "unsampled",
    "weight_module",
]
