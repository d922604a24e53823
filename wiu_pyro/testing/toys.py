"""Toy problems whose answer is known.

`linear_gaussian` is a network whose posterior is known in closed form: one Linear layer, a Normal likelihood of known
noise, independent Normal priors (Bishop 2006, *Pattern Recognition and Machine Learning*, section 3.3). `rescale_relu`
computes the same function with other weights (Neyshabur et al. 2015, section 2), priors moved along, so that whatever
is said of uncertainty should not change.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wiu_pyro.errors import ModelError, PriorError
from wiu_pyro.nn import BayesianNetwork, Normal, base_distribution, is_normal

__all__ = ["Data", "LinearGaussian", "linear_gaussian", "rescale_relu", "small_classifier"]

Data = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LinearGaussian:
    """A linear network with data, and its exact posterior.

    Attributes
    ----------
    model : BayesianNetwork
        One Linear layer; sites ``"weight"`` and ``"bias"``.
    data : tuple of Tensor, shapes (num_data, in) and (num_data, out)
    mean : dict of site to Tensor
        Posterior mean, in the site's shape, float64.
    covariance : Tensor, shape (numel, numel)
        Posterior covariance, float64, over all weights row by row, then all biases: the order of a guide's flat vector.
    kl : float
        KL of the posterior from the prior, in nats.
    log_evidence : float
        Log density of the labels with the weights integrated out, in nats.
    """

    model: BayesianNetwork
    data: Data
    mean: dict[str, torch.Tensor]
    covariance: torch.Tensor
    kl: float
    log_evidence: float


def linear_gaussian(
    num_data: int = 30,
    in_features: int = 3,
    out_features: int = 2,
    *,
    noise_scale: float = 0.5,
    weight_scale: float = 0.7,
    bias_scale: float = 1.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> LinearGaussian:
    """Make a linear network whose posterior is known: any exact method must find it.

    Parameters
    ----------
    num_data, in_features, out_features : int
    noise_scale : float
        Known sd of the labels' noise.
    weight_scale, bias_scale : float
        Prior sds; prior means are zero.
    seed : int
        Of the data and of the network's own weights.
    dtype : dtype
        Of network and data; the posterior is computed in float64.

    Returns
    -------
    LinearGaussian

    Examples
    --------
    >>> problem = linear_gaussian(in_features=3, out_features=2)
    >>> problem.covariance.shape
    torch.Size([8, 8])
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = noise(num_data, in_features)
    y = x @ noise(in_features, out_features) + 0.3 + noise_scale * noise(num_data, out_features)
    net = nn.Linear(in_features, out_features, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(noise(out_features, in_features))
        net.bias.copy_(noise(out_features))
    prior = {"weight": Normal(weight_scale), "bias": Normal(bias_scale)}
    model = BayesianNetwork(net, prior, likelihood="normal", noise_scale=noise_scale, num_data=num_data)

    inputs = torch.cat([x, torch.ones(num_data, 1, dtype=torch.float64)], 1)  # (num_data, in + 1)
    q = torch.tensor([weight_scale**-2] * in_features + [bias_scale**-2], dtype=torch.float64)
    row = torch.linalg.inv(inputs.mT @ inputs / noise_scale**2 + torch.diag(q))  # covariance of one output's weights
    solution = (row @ inputs.mT @ y / noise_scale**2).mT  # (out, in + 1)
    joint = torch.block_diag(*[row] * out_features)  # output by output, weights then bias
    places = torch.arange(joint.shape[0]).view(out_features, in_features + 1)
    order = torch.cat([places[:, :-1].reshape(-1), places[:, -1]])
    labels = inputs @ torch.diag(1 / q) @ inputs.mT + noise_scale**2 * torch.eye(num_data, dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(num_data, dtype=torch.float64), labels)
    prior_q = q.repeat(out_features)
    spread = (prior_q * (joint.diagonal() + solution.reshape(-1).square())).sum()
    kl = 0.5 * (spread - len(prior_q) - torch.logdet(joint) - prior_q.log().sum())
    return LinearGaussian(
        model=model,
        data=(x.to(dtype), y.to(dtype)),
        mean={"weight": solution[:, :-1].clone(), "bias": solution[:, -1].clone()},
        covariance=joint[order][:, order],
        kl=kl.item(),
        log_evidence=evidence.log_prob(y.mT).sum().item(),
    )


def rescale_relu(model: BayesianNetwork, first: str, second: str, *, factor: float) -> BayesianNetwork:
    """Scale one layer of a ReLU network up and the next one down, priors included: the same function and model.

    Contraction, signal-to-noise, KL and effective parameters of a posterior should be those of `model`; raw standard
    deviations are not.

    Parameters
    ----------
    model : BayesianNetwork
        With Normal priors, the same for all weights of a site, on the layers named.
    first, second : str
        Two layers with weight and bias and a ReLU (or max pooling) alone between them.
    factor : float
        Multiplies weight and bias of `first`; the weight of `second` is divided by it.

    Returns
    -------
    BayesianNetwork
        A new model; `model` is left unchanged.

    Raises
    ------
    ModelError
        If the factor is not positive: a ReLU is homogeneous in positive factors alone.
    PriorError
        If a prior is not Normal, or differs within a site.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ModelError(f"A ReLU passes positive factors through, but factor is {factor}. Pass for example 10.0.")
    factors = {f"{first}.weight": factor, f"{first}.bias": factor, f"{second}.weight": 1 / factor}
    net = copy.deepcopy(model.net)
    tensors = {**dict(net.named_buffers()), **dict(net.named_parameters())}
    with torch.no_grad():
        for name, scale in factors.items():
            if name not in tensors:
                raise ModelError(f"The network has no weight '{name}'. Name two layers of it with weight and bias.")
            tensors[name].mul_(scale)
    prior = {name: _scaled(name, found, factors.get(name, 1.0)) for name, found in model.prior_distributions().items()}
    for name in model.site_priors:
        _as_parameter(net, name)
    return BayesianNetwork(
        net, prior, likelihood=model.likelihood, num_data=model.num_data, noise_scale=model.noise_scale
    )


def _scaled(name: str, prior: Any, factor: float) -> Normal:
    base: Any = base_distribution(prior)
    if not is_normal(prior):
        raise PriorError(f"Rescaling needs Normal priors, but '{name}' has a {type(base).__name__}. Use Normal there.")
    loc, scale = base.loc.unique(), base.scale.unique()
    if len(loc) > 1 or len(scale) > 1:
        raise PriorError(
            f"Rescaling needs one prior for all weights of a site, but that of '{name}' differs. Use Normal."
        )
    return Normal(scale.item() * factor, loc=loc.item() * factor)


def _as_parameter(net: nn.Module, name: str) -> None:
    path, _, parameter = name.rpartition(".")
    module = net.get_submodule(path)
    value = getattr(module, parameter)
    delattr(module, parameter)
    module.register_parameter(parameter, nn.Parameter(value))


def small_classifier(*, num_data: int = 24, seed: int = 0, dropout: float = 0.0) -> tuple[BayesianNetwork, Data]:
    """Make a network of two layers, three classes, with data: small enough for any guide.

    Parameters
    ----------
    num_data : int
    seed : int
    dropout : float
        Probability of a dropout before the second layer; 0 for none.

    Returns
    -------
    model : BayesianNetwork
    data : tuple of Tensor, shapes (num_data, 4) and (num_data,)
    """
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(num_data, 4, generator=generator)
    y = (x[:, :3] + 0.5 * torch.randn(num_data, 3, generator=generator)).argmax(1)
    if dropout > 0:
        net.insert(2, nn.Dropout(dropout))
    return BayesianNetwork(net, num_data=num_data), (x, y)
