"""`BayesianNetwork`: any `torch.nn.Module` as a Pyro model with a prior on its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import unwrap
from torch import nn
from torch.func import functional_call

from wiu_pyro.errors import DataError, LikelihoodError, ModelError, a_name, near_matches
from wiu_pyro.nn.batches import Batches
from wiu_pyro.nn.priors import FanInNormal, Prior, match_priors

__all__ = ["BayesianNetwork", "complete_num_data"]

LIKELIHOODS = ("categorical", "bernoulli", "normal")


class BayesianNetwork(PyroModule):
    """A network as a Pyro model: a sample site for each weight with a prior, and one observed site ``"obs"``.

    Sites carry the parameters' names (``"fc1.weight"``). The model takes a batch as ``model(x)`` or ``model(x, y)`` and
    returns the network's output; the log-likelihood of a batch is scaled by ``num_data / batch_size``, so that batches
    give unbiased estimates of the whole data's.

    Parameters
    ----------
    net : Module
        The network; it is copied and itself left unchanged. Its weights, trained or not, are where guides start.
    prior : Prior, or mapping of name pattern to Prior or None
        First match wins; a parameter without a prior stays a point estimate, trained with the guide.
    likelihood : {"categorical", "bernoulli", "normal"}
        What the output parametrises: logits (batch, classes), logits, or the mean of a Normal.
    num_data : int, optional
        Number of data the model will be trained on; `wiu_pyro.fit` and ``laplace_approximation`` set it when it is
        None. None scales by 1.
    noise_scale : float or Distribution, optional
        For ``"normal"``: the known noise standard deviation, or its prior, which adds a site ``"noise_scale"``;
        LogNormal(0, 1) when None.

    Raises
    ------
    ModelError
        If `net` is no Module, has no parameters, or has tied weights.
    LikelihoodError
        If the likelihood is unknown, or `noise_scale` comes with a likelihood without noise.
    PriorError
        If a prior is unknown or a pattern matches nothing.

    Examples
    --------
    >>> model = BayesianNetwork(nn.Linear(4, 3), num_data=100)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.ones(2, 4))
    >>> [name for name in trace.stochastic_nodes if name in model.site_priors]
    ['weight', 'bias']
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior | Mapping[str, Prior | None] = FanInNormal(),  # noqa: B008 (frozen)
        *,
        likelihood: str = "categorical",
        num_data: int | None = None,
        noise_scale: float | dist.Distribution | None = None,
    ) -> None:
        super().__init__()
        _check(net, likelihood, noise_scale)
        if num_data is not None and num_data < 1:
            raise ModelError(f"num_data must be at least 1, but is {num_data}. Pass the number of training data.")
        self.likelihood = likelihood
        self.num_data = num_data
        self.noise_scale = dist.LogNormal(0.0, 1.0) if likelihood == "normal" and noise_scale is None else noise_scale
        self.prior = prior
        self.site_priors = match_priors(prior, [name for name, _ in net.named_parameters()])
        self._distributions: dict[str, dist.Distribution] = {}
        self._distributions_on: tuple[torch.device, torch.dtype] | None = None
        self.net = _with_buffers(copy.deepcopy(net), list(self.site_priors))

    def prior_distributions(self) -> dict[str, dist.Distribution]:
        """Return the prior of each site, on the device of the network's own weights."""
        first = self.net.get_buffer(next(iter(self.site_priors)))
        if self._distributions_on != (first.device, first.dtype):
            for name, prior in self.site_priors.items():
                path, _, parameter = name.rpartition(".")
                module, value = self.net.get_submodule(path), self.net.get_buffer(name)
                self._distributions[name] = prior.distribution(value, name=parameter, module=module)
            self._distributions_on = (first.device, first.dtype)
        return self._distributions

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """Sample the weights, run the network, observe the labels.

        Parameters
        ----------
        x : Tensor, shape (batch, *input_shape)
        y : Tensor, shape (batch,) or (batch, outputs), optional
            Labels; without them the site ``"obs"`` is sampled.

        Returns
        -------
        Tensor, shape (batch, outputs)
            The network's output: logits or means; with the number of draws in front where weights are stacked.

        Raises
        ------
        ModelError
            If the output does not fit the likelihood.
        """
        weights = {name: pyro.sample(name, prior) for name, prior in self.prior_distributions().items()}
        noise = self.noise_scale
        if isinstance(noise, dist.Distribution):
            noise = pyro.sample("noise_scale", noise)
        output, batch_dim = self._output(weights, x)
        scale = 1.0 if self.num_data is None else self.num_data / len(x)
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=scale):
            pyro.sample("obs", self._observation(output, noise, y, batch_dim=batch_dim), obs=y)
        return output

    def log_likelihood(self, weights: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return what the observed site adds to the log joint density, without the handlers of Pyro in between.

        Parameters
        ----------
        weights : mapping of site to Tensor
            A value for each site, or as many draws of each, stacked on the left.
        x : Tensor, shape (batch, *input_shape)
        y : Tensor, shape (batch,) or (batch, outputs)

        Returns
        -------
        Tensor, shape () or (num_samples,)
            In nats, scaled to all ``num_data`` data.

        Raises
        ------
        ModelError
            If the output does not fit the likelihood.
        """
        self.prior_distributions()
        output, batch_dim = self._output({name: weights[name] for name in self.site_priors}, x)
        scale = 1.0 if self.num_data is None else self.num_data / len(x)
        if self.likelihood == "categorical" and output.dim() - batch_dim == 1 and y.dim() == 1:
            labels = y.long().unsqueeze(-1).expand(*output.shape[:-1], 1)
            log_prob = output.log_softmax(-1).gather(-1, labels).squeeze(-1)  # (..., batch)
        else:
            noise = weights.get("noise_scale", self.noise_scale)
            if batch_dim == 2 and isinstance(noise, torch.Tensor) and noise.dim() == 1:
                noise = noise.unsqueeze(-1)  # (num_samples, 1)
            log_prob = self._observation(output, noise, y, batch_dim=batch_dim).log_prob(y)
        return scale * log_prob.sum(-1)

    def _output(self, weights: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, int]:
        # draws stacked by a vectorised `Predictive` come with extra dims on the left and run under vmap; the second
        # value is the number of batch dims of the output
        name, value = next(iter(weights.items()))
        extra = value.dim() - self._distributions[name].event_dim
        if extra == 0:
            return functional_call(self.net, weights, (x,)), 1
        # (num_samples, 1, ..., *weight_shape) -> (num_samples, *weight_shape)
        shapes = {key: prior.event_shape for key, prior in self._distributions.items()}
        stacked = {
            key: draw.reshape(-1, *shapes[key]).expand(value.shape[:extra].numel(), *shapes[key])
            for key, draw in weights.items()
        }
        run = torch.vmap(lambda one: functional_call(self.net, one, (x,)), randomness="different")
        return run(stacked), 2

    def _observation(
        self, output: torch.Tensor, noise: Any, y: torch.Tensor | None, *, batch_dim: int
    ) -> dist.Distribution:
        if self.likelihood == "categorical":
            if output.dim() < 2:
                raise ModelError(
                    "A categorical likelihood needs outputs of shape (batch, classes), "
                    f"but the network gave {tuple(output.shape)}. End the network in a layer with one unit per class."
                )
            if output.dim() - batch_dim > 1:
                raise ModelError(
                    "A categorical likelihood needs one label for each datum, outputs of shape (batch, classes), but "
                    f"the network gave {tuple(output.shape)}: labels at several positions are not covered. End the "
                    "network in one row per datum, or write a Pyro model of your own and use mean-field VI."
                )
            return dist.Categorical(logits=output)
        if output.dim() > 1 and output.shape[-1] == 1 and (y is None or y.dim() == 1):
            output = output.squeeze(-1)  # (..., batch, 1) -> (..., batch), as the observations are
        event_dim = output.dim() - batch_dim
        if self.likelihood == "bernoulli":
            return dist.Bernoulli(logits=output).to_event(event_dim)
        if isinstance(noise, torch.Tensor) and noise.dim():
            noise = noise.reshape(*noise.shape, *(1,) * event_dim)
        return dist.Normal(output, noise).to_event(event_dim)


def complete_num_data(model: Any, batches: Batches) -> None:
    """Set the number of data of a `BayesianNetwork` that was made without one; leave other models as they are.

    Raises
    ------
    DataError
        If the data do not say how many they are.
    """
    model = unwrap(model)
    if not isinstance(model, BayesianNetwork) or model.num_data is not None:
        return
    if batches.num_data is None:
        raise DataError(
            "The number of data scales the likelihood against the prior, but this DataLoader does not say it. "
            "Pass it: BayesianNetwork(net, num_data=60_000)."
        )
    model.num_data = batches.num_data


def _check(net: nn.Module, likelihood: str, noise_scale: Any) -> None:
    if not isinstance(net, nn.Module):
        raise ModelError(f"A torch.nn.Module is needed, but this is {a_name(net)}. Pass the network itself.")
    if likelihood not in LIKELIHOODS:
        raise LikelihoodError(f"Unknown likelihood '{likelihood}'. {near_matches(likelihood, LIKELIHOODS)}")
    if noise_scale is not None and likelihood != "normal":
        raise LikelihoodError(
            f"noise_scale belongs to likelihood='normal', but the likelihood is '{likelihood}'. Leave noise_scale out."
        )
    if isinstance(noise_scale, int | float) and not noise_scale > 0:
        raise LikelihoodError(f"noise_scale must be positive, but is {noise_scale}. Pass the noise's sd.")
    names: dict[int, str] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            raise ModelError(
                f"Each weight needs one place, but '{names[id(parameter)]}' and '{name}' are the same tensor "
                "(tied weights). Give each its own, or leave both out of the model's network."
            )
        names[id(parameter)] = name
    if not names:
        raise ModelError(f"The network {type(net).__name__} has no parameters. Pass a network with weights.")
    for name, parameter in net.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter).all():
            raise ModelError(f"The network's weights must be finite, but '{name}' holds NaN or infinity. Load it anew.")


def _with_buffers(net: nn.Module, names: list[str]) -> nn.Module:
    """Turn parameters that get a prior into buffers: they are where guides start, not what an optimiser moves."""
    for name in names:
        path, _, parameter = name.rpartition(".")
        module = net.get_submodule(path)
        value = getattr(module, parameter).detach().clone()
        delattr(module, parameter)
        module.register_buffer(parameter, value)
    return net
