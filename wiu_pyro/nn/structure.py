"""What a Pyro model consists of: its layers and their sites, priors, the observed site, the number of data.

Works on `BayesianNetwork` and on any Pyro model whose weights are sample sites named after module attributes, such as a
`PyroModule` with `PyroSample` weights. One run of the model on one batch tells all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import unwrap
from torch import nn

from wiu_pyro.curvature import OutputLikelihood, read
from wiu_pyro.errors import DataError, LikelihoodError, ModelError
from wiu_pyro.nn.network import BayesianNetwork
from wiu_pyro.nn.running import run_at

__all__ = [
    "Layer",
    "ModelStructure",
    "evaluation_mode",
    "inspect_model",
    "weight_module",
]

ROOT_LAYER = "net"  # the name of a network that is itself a single layer and has no path


@dataclass(frozen=True)
class Layer:
    """One layer: a module with at least one sampled parameter.

    Attributes
    ----------
    name : str
        Dotted path of the module (``"features.0"``); the site's own name for a weight that belongs to no submodule.
    module_type : str
        For example ``"Linear"``.
    sites : dict of str to str
        Site of each sampled parameter, by the parameter's name: ``{"weight": "fc1.weight"}``.
    shapes : dict of str to tuple of int
        Shape of each sampled parameter.
    depth : int
        Place in the order in which the model samples its layers, from 0.
    module : Module or None
    """

    name: str
    module_type: str
    sites: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    depth: int
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def num_weights(self) -> int:
        """Number of sampled weights, biases included."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


@dataclass(frozen=True)
class ModelStructure:
    """A model taken apart.

    Attributes
    ----------
    layers : tuple of Layer
    other_sites : tuple of str
        Scalar latent sites that are no layer's, such as ``"noise_scale"``.
    priors : dict of str to Distribution
        Prior of each latent site.
    observed : str
        Name of the observed site.
    likelihood : str
        ``"categorical"``, ``"bernoulli"``, ``"normal"`` or ``"other"``.
    num_outputs : int
        Outputs per datum; 0 for another likelihood.
    num_data : float
        Number of data the model's plate scales to.
    not_covered : tuple of str
        Parameters without a prior: point estimates.
    dependent_priors : tuple of str
        Sites whose prior depends on another site or on a learned parameter: `priors` holds it at one draw of these.
    """

    layers: tuple[Layer, ...]
    other_sites: tuple[str, ...]
    priors: dict[str, dist.Distribution]
    observed: str
    likelihood: str
    num_outputs: int
    num_data: float
    not_covered: tuple[str, ...] = ()
    dependent_priors: tuple[str, ...] = ()

    @property
    def layer_sites(self) -> dict[str, dict[str, str]]:
        """Site of each parameter of each layer."""
        return {layer.name: layer.sites for layer in self.layers}

    @property
    def parameter_sites(self) -> dict[str, tuple[str, str]]:
        """Layer and parameter name of each weight site."""
        return {site: (layer.name, name) for layer in self.layers for name, site in layer.sites.items()}


def weight_module(model: Callable[..., Any]) -> nn.Module | None:
    """Return the module whose attribute paths are the names of the sites: ``model.net``, or the model itself."""
    model = unwrap(model)
    if isinstance(model, BayesianNetwork):
        return model.net
    return model if isinstance(model, nn.Module) else None


def inspect_model(model: Callable[..., Any], *batch: torch.Tensor) -> ModelStructure:
    """Run a model once and take it apart.

    Parameters
    ----------
    model : callable
        A Pyro model; wrappers put around it by guides are looked through.
    *batch : Tensor
        One batch, labels included: the model is called as ``model(*batch)``.

    Returns
    -------
    ModelStructure

    Raises
    ------
    ModelError
        If there is not exactly one observed site, no latent site, a site has no continuous support, or the data have
        weights of their own.
    DataError
        If the labels are not of the shape of the observed site: they would be broadcast.
    """
    model = unwrap(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), poutine.block(), evaluation_mode(model):
        trace = poutine.trace(model).get_trace(*batch)
    observed = [name for name in trace.observation_nodes if not _is_subsample(trace.nodes[name])]
    if len(observed) != 1:
        raise ModelError(
            f"The model needs exactly one observed site, but has {len(observed)} ({', '.join(observed) or 'none'}). "
            "Call it with inputs and labels, and pass the labels as obs= to one pyro.sample."
        )
    latent = {name: trace.nodes[name]["fn"] for name in trace.stochastic_nodes if not _is_subsample(trace.nodes[name])}
    if not latent:
        raise ModelError(
            "The model samples no weights. Give its weights priors: wiu_pyro.nn.BayesianNetwork(net), or PyroSample."
        )
    node = trace.nodes[observed[0]]
    _check_observation(node)
    kind, outputs = _likelihood(node["fn"])
    layers, others = _layers(model, trace, list(latent))
    return ModelStructure(
        layers=layers,
        other_sites=others,
        priors=latent,
        observed=observed[0],
        likelihood=kind,
        num_outputs=outputs,
        num_data=float(node["scale"]) * len(batch[0]),
        not_covered=_not_covered(model, latent, trace),
        dependent_priors=_dependent_priors(model, trace, list(latent), batch),
    )


@contextmanager
def evaluation_mode(model: Callable[..., Any]) -> Iterator[None]:
    """Keep dropout and running statistics still while looking at a model."""
    model = unwrap(model)
    modules = [] if not isinstance(model, nn.Module) else [one for one in model.modules() if one.training]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


def _check_observation(node: Mapping[str, Any]) -> None:
    wanted, got = tuple(node["fn"].shape()), tuple(node["value"].shape)
    if wanted != got:
        raise DataError(
            f"Labels of shape {wanted} are needed at the observed site '{node['name']}', but they have shape {got}. "
            f"Reshape them: y.reshape{wanted}."
        )
    scale = node["scale"]
    if isinstance(scale, torch.Tensor) and scale.numel() > 1:
        raise ModelError(
            f"All data need one weight in the likelihood, but at the observed site '{node['name']}' poutine.scale "
            f"gives them a scale of shape {tuple(scale.shape)}. Give them one number."
        )


def _dependent_priors(
    model: Callable[..., Any], trace: poutine.Trace, latent: list[str], batch: tuple[torch.Tensor, ...]
) -> tuple[str, ...]:
    """Return the sites whose prior changes with another site or with a learned parameter."""
    values = {name: trace.nodes[name]["value"].detach().clone().requires_grad_() for name in latent}
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), poutine.block(), evaluation_mode(model):
        again, _ = run_at(model, values, batch)
        densities = {name: again.nodes[name]["fn"].log_prob(values[name].detach()) for name in latent}
    return tuple(name for name, density in densities.items() if density.requires_grad)


def _is_subsample(node: Mapping[str, Any]) -> bool:
    return type(node["fn"]).__name__ == "_Subsample"


def _likelihood(distribution: dist.Distribution) -> tuple[str, int]:
    try:
        likelihood: OutputLikelihood = read(distribution)
    except LikelihoodError:
        return "other", 0
    return likelihood.kind, likelihood.output.shape[-1]


def _layers(
    model: Callable[..., Any], trace: poutine.Trace, latent: list[str]
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    root = weight_module(model)
    modules = dict(root.named_modules()) if root is not None else {}
    sites: dict[str, dict[str, str]] = {}
    others: list[str] = []
    for name in latent:
        path, _, parameter = name.rpartition(".")
        shape = trace.nodes[name]["value"].shape
        if not path and parameter in ("weight", "bias") and root is not None:
            path = ROOT_LAYER
        elif not path and not shape:
            others.append(name)
            continue
        elif not path:
            path, parameter = name, "weight"
        sites.setdefault(path, {})[parameter] = name
    layers = []
    for depth, (path, found) in enumerate(sites.items()):
        module = root if path == ROOT_LAYER and path not in modules else modules.get(path)
        shapes = {parameter: tuple(trace.nodes[site]["value"].shape) for parameter, site in found.items()}
        kind = _module_type(module)
        layers.append(Layer(path, kind, found, shapes, depth, module))
    return tuple(layers), tuple(others)


def _module_type(module: nn.Module | None) -> str:
    if module is None:
        return "parameter"
    return type(module).__name__.removeprefix("Pyro")


def _not_covered(model: Callable[..., Any], latent: Mapping[str, Any], trace: poutine.Trace) -> tuple[str, ...]:
    root = weight_module(model)
    own = [] if root is None else [name for name, _ in root.named_parameters() if name not in latent]
    learned = [name for name in trace.param_nodes if name not in own and name not in latent]
    # parameters of the modules come under their path already
    return (*own, *(name for name in learned if root is None or not any(name.endswith(known) for known in own)))
