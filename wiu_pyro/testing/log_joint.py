"""The log joint density of a small model as a function of one flat vector of weights: what references are made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.func import functional_call

from wiu_pyro.curvature import read
from wiu_pyro.errors import GuideError, PriorError
from wiu_pyro.nn import BayesianNetwork, ModelStructure, base_distribution, inspect_model, is_normal, run_at

__all__ = ["LogJoint"]

LOG_TWO_PI = math.log(2 * math.pi)


class LogJoint:
    """Log prior plus log likelihood of all data, in nats, over a flat vector of all weights.

    Parameters
    ----------
    model : callable
        A Pyro model whose latent sites are weights with Normal priors.
    data : tuple of Tensor
        All training data: inputs and labels.

    Raises
    ------
    PriorError
        If a prior is not Normal.
    GuideError
        If the model samples more than weights, such as a noise scale.
    """

    def __init__(self, model: Callable[..., Any], data: tuple[torch.Tensor, ...]) -> None:
        if isinstance(model, BayesianNetwork) and model.num_data is None:
            model.num_data = len(data[0])
        self.model, self.data = model, tuple(data)
        self.structure: ModelStructure = inspect_model(model, *self.data)
        if self.structure.other_sites:
            raise GuideError(
                "A reference is made for models of weights alone, but this one samples "
                f"{', '.join(map(repr, self.structure.other_sites))} too. Fix it: noise_scale=0.5, for example."
            )
        self.sites = list(self.structure.parameter_sites)
        parts = [self._prior(site) for site in self.sites]
        self.shapes = {site: tuple(part[0].shape) for site, part in zip(self.sites, parts, strict=True)}
        self.prior_loc = torch.cat([loc.reshape(-1) for loc, _ in parts])
        self.prior_scale = torch.cat([scale.reshape(-1) for _, scale in parts])
        self._constant = -float(self.prior_scale.log().sum()) - 0.5 * self.num_weights * LOG_TWO_PI

    def _prior(self, site: str) -> tuple[torch.Tensor, torch.Tensor]:
        prior = self.structure.priors[site]
        base = base_distribution(prior)
        if not is_normal(prior) or site in self.structure.dependent_priors:
            free = " that depends on another site" if site in self.structure.dependent_priors else ""
            raise PriorError(
                f"A reference is made for Normal priors that are fixed, but that of '{site}' is a "
                f"{type(base).__name__}{free}. Use wiu_pyro.nn.Normal or FanInNormal."
            )
        shape = prior.shape()
        return base.loc.detach().expand(shape), base.scale.detach().expand(shape)

    @property
    def num_weights(self) -> int:
        """Number of weights."""
        return len(self.prior_loc)

    def flat(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the flat vectors, (*batch, num_weights), of values by site, (*batch, *shape)."""
        parts = []
        for site in self.sites:
            value, event = values[site], len(self.shapes[site])
            parts.append(value.reshape(*value.shape[: value.dim() - event], -1))
        return torch.cat(parts, -1)

    def by_site(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return values by site, (*batch, *shape), of flat vectors, (*batch, num_weights)."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = flat.split(sizes, -1)
        return {site: part.reshape(*flat.shape[:-1], *self.shapes[site]) for site, part in zip(self.sites, parts)}

    def own_weights(self) -> torch.Tensor:
        """Return the network's own weights, (num_weights,).

        Returns
        -------
        Tensor

        Raises
        ------
        GuideError
            If the model is no `BayesianNetwork`, which alone keeps them.
        """
        if not isinstance(self.model, BayesianNetwork):
            raise GuideError("The weights to start from are needed, but this model keeps none. Pass start=fit.")
        net = self.model.net
        return self.flat({site: net.get_buffer(site) for site in self.sites}).clone()

    def output(self, flat: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return the network's output for some inputs, (batch, outputs)."""
        values = self.by_site(flat)
        if isinstance(self.model, BayesianNetwork):
            return functional_call(self.model.net, values, (inputs,))
        trace, _ = run_at(self.model, values, (inputs, *self.data[1:]))
        return read(trace.nodes[self.structure.observed]["fn"]).output

    def values(self, flat: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the network says of some inputs: class probabilities, or means."""
        output = self.output(flat, inputs)
        squash = {"categorical": lambda logits: logits.softmax(-1), "bernoulli": torch.sigmoid}
        return squash.get(self.structure.likelihood, lambda mean: mean)(output)

    def __call__(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the log joint density at one flat vector, nats, constants included."""
        deviation = (flat - self.prior_loc) / self.prior_scale
        return self._constant - 0.5 * deviation.square().sum() + self._likelihood(flat)

    def _likelihood(self, flat: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.model, BayesianNetwork) or len(self.data) != 2:
            trace, _ = run_at(self.model, self.by_site(flat), self.data)
            trace.compute_log_prob(lambda name, _: name == self.structure.observed)
            return trace.nodes[self.structure.observed]["log_prob_sum"]
        output, labels = self.output(flat, self.data[0]), self.data[1]
        if self.structure.likelihood == "categorical":
            density = -torch.nn.functional.cross_entropy(output, labels.long(), reduction="sum")
        elif self.structure.likelihood == "bernoulli":
            wanted = labels.reshape(output.shape).to(output)
            density = -torch.nn.functional.binary_cross_entropy_with_logits(output, wanted, reduction="sum")
        else:
            noise = float(self.model.noise_scale)
            density = -0.5 * ((output - labels.reshape(output.shape)) / noise).square().sum()
            density = density - labels.numel() * (math.log(noise) + 0.5 * LOG_TWO_PI)
        return density * (self.structure.num_data / len(labels))
