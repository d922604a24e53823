"""Variational inference with a matrix-variate Normal for each layer: weights correlate along rows and along columns.

Louizos and Welling (2016), Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors: a
layer's weight and bias together are MN(M, U, V), their covariance the Kronecker product U ⊗ V, with out² + in² numbers
in place of (out · in)². With diagonal factors, as in the paper, it has out + in and all weights are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from wiu_pyro.curvature import MatrixRule, rule_for
from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.blocks import Block, BlockNormal
from wiu_pyro.guides.cross_entropy import cross_entropy
from wiu_pyro.guides.flat_prior import HALF_LOG_TWO_PI
from wiu_pyro.guides.initial_scale import WIDEST_START, check_init_scale, least_loss_scale
from wiu_pyro.guides.matrix_normal_factors import LayerFactors
from wiu_pyro.guides.matrix_normal_noise import MatrixSource
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.start import is_real
from wiu_pyro.linalg import DiagonalPrecision, MatrixNormalPrecision, Precision
from wiu_pyro.nn import Layer, ModelStructure

__all__ = ["AutoMatrixNormal"]

FACTORS = ("cholesky", "diagonal")
ESTIMATORS = ("local", "reparam")


class AutoMatrixNormal(NetworkGuide):
    """A matrix-variate Normal for the weight and bias of each layer; layers are independent of each other.

    Layers that multiply by a matrix (Linear, convolutions) have one, with a row for each output; the weights of others
    are independent Normals.

    Parameters
    ----------
    model : callable
        A Pyro model.
    factors : {"cholesky", "diagonal"}
        Any covariance of the rows and of the columns, by its Cholesky factor; or independent rows and columns.
    widest : int
        A side with more entries than this gets a diagonal factor all the same; the table of layers says so.
    estimator : {"local", "reparam"}
        How `negative_elbo` estimates the expected log-likelihood: with outputs of Linear layers sampled for each
        datum and weights of other layers drawn in two of opposite noise, for the halves of the batch; or with one draw
        of all weights.
    init_scale : float, optional
        Initial posterior sd as a fraction of the prior sd. When None, as of `AutoMeanField`.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the KL.

    Raises
    ------
    GuideError
        If a number is not positive, or a name is unknown.

    Examples
    --------
    >>> from wiu_pyro.nn import BayesianNetwork
    >>> guide = AutoMatrixNormal(BayesianNetwork(nn.Linear(4, 3), num_data=8))
    >>> sorted(guide(torch.ones(8, 4), torch.zeros(8)))
    ['bias', 'weight']
    """

    cli_name = "matrix-normal"
    structure_name = "matrix-normal"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        factors: str = "cholesky",
        widest: int = 1024,
        estimator: str = "local",
        init_scale: float | None = None,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        check_init_scale(init_scale)
        if widest < 0:
            raise GuideError(f"widest must be 0 or more, but is {widest}. 0 makes all factors diagonal.")
        for value, known in ((factors, FACTORS), (estimator, ESTIMATORS)):
            if value not in known:
                raise GuideError(f"'{value}' is unknown here. {near_matches(value, known)}")
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.widest = 0 if factors == "diagonal" else widest
        self.estimator = estimator
        self.init_scale, self.start_scale = init_scale, init_scale or WIDEST_START

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc = nn.Parameter(self._init_loc())
        log_scale = (self.start_scale * self.flat_prior().scale).log()
        places, factors = self._site_places(), {}
        free = torch.ones(self.latent_dim, dtype=torch.bool)
        self.matrix_layers: dict[str, str] = {}  # by layer, the key of its factors and index; a key may hold no dots
        self.free_parts: list[tuple[tuple[str, ...], str]] = []  # layers, and the name of their index
        for number, layer in enumerate(self.structure.layers):
            rule, key = rule_for(layer.module, layer.shapes), f"layer_{number}"
            index = torch.cat([places[site].reshape(-1) for site in layer.sites.values()])
            if self._is_matrix(layer, rule):
                index = rule.join({name: places[site] for name, site in layer.sites.items()})
                start = log_scale[index].view(rule.groups, rule.out_features, rule.in_features)
                factors[key] = LayerFactors(rule, start, widest=self.widest)
                self.matrix_layers[layer.name] = key
                free[index] = False
            else:
                self.free_parts.append(((layer.name,), f"index_{key}"))
            self.register_buffer(f"index_{key}", index, persistent=False)
        others = [places[site].reshape(-1) for site in self.structure.other_sites]
        if others:
            self.register_buffer("index_others", torch.cat(others), persistent=False)
            self.free_parts.append(((), "index_others"))
        self.scale_factors = nn.ModuleDict(factors)
        self.register_buffer("free_index", free.nonzero()[:, 0], persistent=False)
        self.log_scale = nn.Parameter(log_scale[self.free_index])

    def _site_places(self) -> dict[str, torch.Tensor]:
        """Return where the entries of each site stand in the flat vector, in the site's shape."""
        positions = torch.arange(self.latent_dim)
        return {name: positions[place].view(shape) for name, place, shape in self.sites()}

    def _is_matrix(self, layer: Layer, rule: Any) -> bool:
        real = all(is_real(self.structure.priors[site].support) for site in layer.sites.values())
        return isinstance(rule, MatrixRule) and "weight" in layer.shapes and real

    def _parts(self) -> list[tuple[str, LayerFactors, torch.Tensor]]:
        """Return name, factors and index of each layer that has a matrix-variate Normal."""
        factors = self.scale_factors
        return [(name, factors[key], getattr(self, f"index_{key}")) for name, key in self.matrix_layers.items()]

    def _put_start_scale(self, scale: float) -> None:
        change = math.log(scale / self.start_scale)
        with torch.no_grad():
            self.log_scale += change
            for _, factors, _ in self._parts():
                factors.columns.log_scale += change
        self.start_scale = scale

    def before_training(self, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Choose the initial scale by −ELBO, unless it was given."""
        if self.init_scale is None:
            least_loss_scale(self._put_start_scale, self.negative_elbo, batches)

    def least_travel(self) -> float:
        """Return the way of a log sd from its start to the prior's, where it belongs if the data say nothing."""
        return abs(math.log(self.start_scale))

    def variance(self) -> torch.Tensor:
        """Return the marginal variances, shape (latent_dim,)."""
        found = self.loc.new_zeros(self.latent_dim).index_copy(0, self.free_index, (2 * self.log_scale).exp())
        for _, factors, index in self._parts():
            found = found.index_copy(0, index, factors.variances())
        return found

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy in nats, on the graph of the parameters."""
        total = self.log_scale.sum() + self.latent_dim * (0.5 + HALF_LOG_TWO_PI)
        for _, factors, _ in self._parts():
            total = total + factors.log_scale_sum()
        return total

    def kl_divergence(self, flat: torch.Tensor | None = None) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats: closed form for Normal priors, by the draw `flat` for the others."""
        prior = self.flat_prior()
        divergence = cross_entropy(prior, self.loc, self.variance()) - self.entropy()
        if prior.all_normal:
            return divergence
        return divergence - self.other_log_prior(self.get_posterior().rsample() if flat is None else flat)

    def negative_elbo(self, *batch: torch.Tensor, kl_weight: float = 1.0) -> torch.Tensor:
        """Return an estimate of −ELBO from the batch, in nats; the temperature multiplies the KL."""
        self.refuse_dependent_priors()
        if self.estimator == "reparam":
            weights = self.unpack(self.get_posterior().rsample())
        else:
            weights = self._draw(len(batch[0]))
        return kl_weight * self.temperature * self.kl_divergence() - self.log_likelihood(weights, batch)

    def _draw(self, num_rows: int) -> dict[str, torch.Tensor]:
        """Return a draw of each site, made where it is needed; of sites of no matrix, at once."""
        free = self.loc.new_zeros(self.latent_dim).index_copy(0, self.free_index, self.log_scale.exp())
        weights = self.unpack(torch.addcmul(self.loc, free, torch.randn_like(free)))
        layers = {layer.name: layer for layer in self.structure.layers}
        for name, factors, _ in self._parts():
            sites, shapes = layers[name].sites, layers[name].shapes
            loc = torch.cat([weights[site].reshape(-1) for site in sites.values()])
            source = MatrixSource(loc, factors, num_rows=num_rows)
            weights |= zip(sites.values(), source.split([torch.Size(shape) for shape in shapes.values()]), strict=True)
        return weights

    def get_posterior(self, *args: Any, **kwargs: Any) -> BlockNormal:
        """Return the Gaussian over the flat, unconstrained vector of all weights, on the graph of the parameters."""
        return _OnGraph(self.loc, self._blocks())

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loc, self.variance().sqrt()

    def gaussian_blocks(self, structure: ModelStructure) -> tuple[Block, ...]:
        """Return the posterior's independent parts, without a graph."""
        with torch.no_grad():
            return self._blocks()

    def _blocks(self) -> tuple[Block, ...]:
        blocks = [Block((name,), part.structure, _precision(part), index) for name, part, index in self._parts()]
        variance = self.variance()
        for layers, key in self.free_parts:
            index = getattr(self, key)
            blocks.append(Block(layers, "mean-field", DiagonalPrecision(variance[index].reciprocal()), index))
        return tuple(blocks)

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, on the unconstrained scale, a float64 scalar in nats."""
        return BlockNormal(self.loc, self._blocks()).log_prob(self.pack(weights))


class _OnGraph(BlockNormal):
    """The same distribution, with draws on the graph of its parameters."""

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> _OnGraph:
        return _OnGraph(self.loc, self.blocks, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        draws = self.loc.expand(shape).reshape(-1, shape[-1])
        for block in self.blocks:
            noise = torch.randn(len(draws), len(block.index), dtype=draws.dtype, device=draws.device)
            draws = draws.index_add(1, block.index, block.precision.colour(noise))
        return draws.view(shape)


def _precision(factors: LayerFactors) -> Precision:
    if factors.rows.lower is None and factors.columns.lower is None:
        return DiagonalPrecision(factors.variances().reciprocal())
    return MatrixNormalPrecision(factors.rows.matrix(), factors.columns.matrix())
