"""A pruned network to take along: its weights by site, or a plain torch module, sparse if asked."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import nn

from wiu_pyro.errors import DataError, ModelError
from wiu_pyro.export.sources import read_source
from wiu_pyro.interventions.candidates import read_candidates
from wiu_pyro.interventions.config import read_config
from wiu_pyro.interventions.curves import removals
from wiu_pyro.interventions.prune import MOMENT_DRAWS
from wiu_pyro.interventions.pruned_predictions import masked
from wiu_pyro.nn import BayesianNetwork, weight_module

__all__ = ["pruned_module", "pruned_weights"]


def pruned_weights(
    posterior: Any,
    *,
    criterion: str = "signal_to_noise",
    sparsity: float = 0.95,
    train_data: Any = None,
    model: Callable[..., Any] | None = None,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Return the posterior means with zeros where weights were removed.

    Parameters
    ----------
    posterior : Fit, AutoGuide or MCMC
        Of MCMC the first chain is taken.
    criterion : str
        A name of `CRITERIA`.
    sparsity : float
        Share of the weights to remove, at least 0 and below 1.
    train_data : DataLoader, Dataset or tuple of tensors, optional
        For the brain surgeon, and for a guide that has to look at the model.
    model : callable, optional
        For a guide or MCMC result that does not know its own.
    **options
        ``sd``, ``seed`` and one name in ``rankings`` of `PruneConfig`.

    Returns
    -------
    dict of site to Tensor

    Raises
    ------
    DataError
        If an option is wrong, or the criterion cannot be had.
    """
    if not 0 <= sparsity < 1:
        raise DataError(
            f"A share to remove of at least 0 and below 1 is needed, got {sparsity}. Pass for example 0.95."
        )
    config = read_config({"rankings": ("global",), **options, "criteria": (criterion,)})
    source = read_source(posterior, model=model, data=train_data, num_samples=MOMENT_DRAWS, seed=config.seed)
    weights = read_candidates(source, source.chains[0])
    orders, _ = removals(source, weights, config, train_data)
    keep = orders[criterion].keep(sparsity, ranking=config.rankings[0])
    return masked(weights.centre, weights, keep)


def pruned_module(posterior: Any, *, sparse: bool = False, **options: Any) -> nn.Module:
    """Return the pruned network as a plain torch module, without priors.

    Parameters
    ----------
    posterior : Fit
        Of a `BayesianNetwork`.
    sparse : bool
        Hold the weights of Linear layers in compressed rows (``torch.sparse_csr``), for inference; others stay dense.
        torch cannot deepcopy such a module, and loads its state with ``assign=True`` only.
    **options
        As for `pruned_weights`.

    Returns
    -------
    Module
        In evaluation mode.

    Raises
    ------
    ModelError
        If the model is no `BayesianNetwork`: its module is not a plain one.
    """
    model = getattr(posterior, "model", None)
    root = weight_module(model) if model is not None else None
    if not isinstance(model, BayesianNetwork) or root is None or isinstance(root, PyroModule):
        raise ModelError(
            "A plain module can be made of a fit of BayesianNetwork, but this model is a "
            f"{type(model).__name__}. Load pruned_weights(...) into a network of your own."
        )
    weights = pruned_weights(posterior, **options)
    net = copy.deepcopy(root)
    for name, value in getattr(posterior, "unsampled", {}).items():
        path, _, parameter = name.rpartition(".")
        with torch.no_grad():
            getattr(net.get_submodule(path), parameter).copy_(value)
    for site in model.site_priors:
        path, _, parameter = site.rpartition(".")
        module = net.get_submodule(path)
        del module._buffers[parameter]
        module.register_parameter(parameter, nn.Parameter(weights[site].detach().clone()))
    if sparse:
        _compress(net)
    return net.eval()


def _compress(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Linear):
            with warnings.catch_warnings():  # torch calls its compressed rows a beta
                warnings.filterwarnings("ignore", message="Sparse CSR", category=UserWarning)
                weight = module.weight.detach().to_sparse_csr()
            module.weight = nn.Parameter(weight, requires_grad=False)
