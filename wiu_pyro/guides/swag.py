"""SWAG: a Gaussian through the weights that stochastic gradient descent visits around a point estimate.

Maddox et al. (2019), A Simple Baseline for Bayesian Uncertainty in Deep Learning. Training first goes to a point
estimate under the model's prior, then on at a constant learning rate; snapshots of the weights give a mean, a diagonal
variance, and the deviations of the last of them, which are a covariance of low rank. Its sds are those of this
trajectory: they come from learning rate and batch size as much as from the data, and are not what Bayes' rule gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from wiu_pyro.errors import GuideError, near_matches
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.point_trained import PointTrained
from wiu_pyro.guides.running_statistics import recompute_running_statistics
from wiu_pyro.guides.swag_optimiser import TwoPhaseOptimiser
from wiu_pyro.linalg import LowRankCovariance
from wiu_pyro.nn import Batches, ModelStructure

__all__ = ["AutoSWAG"]

OPTIMISERS = ("sgd", "adam")
RATES = {"sgd": 0.01, "adam": 1e-3}  # of the mean loss of a datum, and of Adam
FEWEST = 2  # snapshots


class AutoSWAG(PointTrained):
    """A Gaussian of low rank plus diagonal, fitted to the weights' own way around a point estimate.

    Trained by `wiu_pyro.fit` alone: Adam up to the point estimate, then `snapshots` snapshots, evenly spread over the
    last `trajectory` of the steps at a constant learning rate. Draws are the paper's, half of the variance from the
    diagonal and half from the last `rank` deviations; moments and density are exact. A weight that never moved is held
    at its value. Running statistics (BatchNorm) are computed again at the mean when training ends, and shared by all
    draws; the paper computes them for each draw, which takes a pass over the training data each.

    Parameters
    ----------
    model : callable
        A Pyro model. The prior enters the loss, as for any point estimate.
    rank : int
        Deviations kept, at least 2.
    snapshots : int
        Of the weights, at least 2; fewer where there are fewer steps.
    trajectory : float
        Share of the steps that is the trajectory.
    optimiser : {"sgd", "adam"}
        Of the trajectory.
    trajectory_rate : float, optional
        Its learning rate: of SGD relative to the mean loss of a datum, 0.01 when None; of Adam 0.001 when
        None. The larger, the wider the Gaussian: choose it by held-out data.
    momentum : float
        Of SGD.
    init_loc_fn : callable, optional
        Pyro's per-site initialisation; the network's own weights when None.
    temperature : float
        Multiplies the weight of the prior against the likelihood; 1 is Bayes. The trajectory's spread has none.

    Raises
    ------
    GuideError
        If a number is out of range or the optimiser unknown.

    Examples
    --------
    >>> import wiu_pyro as wiu
    >>> model = wiu.nn.BayesianNetwork(torch.nn.Linear(4, 3), num_data=8)
    >>> fit = wiu.fit(model, AutoSWAG(model), (torch.ones(8, 4), torch.zeros(8).long()), epochs=10)
    >>> int(fit.guide.count)
    5
    """

    cli_name = "swag"
    structure_name = "low-rank"
    trained_by: ClassVar[str] = "fit"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rank: int = 20,
        snapshots: int = 40,
        trajectory: float = 0.5,
        optimiser: str = "sgd",
        trajectory_rate: float | None = None,
        momentum: float = 0.9,
        init_loc_fn: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        temperature: float = 1.0,
    ) -> None:
        _check(rank, snapshots, trajectory=trajectory, optimiser=optimiser, rate=trajectory_rate, momentum=momentum)
        super().__init__(model, init_loc_fn=init_loc_fn, temperature=temperature)
        self.rank, self.snapshots, self.trajectory = rank, snapshots, trajectory
        self.optimiser, self.momentum = optimiser, momentum
        self.trajectory_rate = RATES[optimiser] if trajectory_rate is None else trajectory_rate

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.register_buffer("mean", self.loc.detach().clone())
        self.register_buffer("squares", torch.zeros_like(self.mean))  # Σ (θ − mean)², updated as Welford (1962) has it
        self.register_buffer("deviations", torch.zeros(self.rank, len(self.mean)).to(self.mean))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def start_at(self, values: dict[str, torch.Tensor]) -> None:
        """Move the point the training starts at to given weights, and forget the snapshots."""
        super().start_at(values)
        self.count.zero_()

    def make_optimiser(self, parameters: list[torch.Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser of both phases; the trajectory's rate is of the mean loss of a datum."""
        rate, second = self.trajectory_rate, None
        if self.optimiser == "sgd":  # the loss is summed over the data
            rate = rate / self.structure.num_data
            second = torch.optim.SGD(parameters, lr=rate, momentum=self.momentum)
        found = TwoPhaseOptimiser(parameters, learning_rate=learning_rate, trajectory=second, trajectory_rate=rate)
        self.count.zero_()
        self.__dict__["_running"] = found
        return found

    def after_step(self, step: int, total: int) -> None:
        """Take a snapshot where it is time for one, and go from one phase to the other."""
        length = min(total, max(FEWEST, round(self.trajectory * total)))
        start = total - length
        self.__dict__["_running"].reach(step + 1, start)
        done, every = step + 1 - start, max(1, length // self.snapshots)
        if done > 0 and done % every == 0:
            self.take_snapshot()

    @torch.no_grad()
    def take_snapshot(self) -> None:
        """Add the present weights to the moments, and their deviation from the new mean to those kept."""
        self.count += 1
        count = int(self.count)
        before = self.loc - self.mean if count > 1 else torch.zeros_like(self.mean)
        self.mean.copy_(self.mean + before / count if count > 1 else self.loc)
        after = self.loc - self.mean
        self.squares.copy_(self.squares + before * after if count > 1 else before)
        self.deviations[(count - 1) % self.rank] = after

    def after_training(self, batches: Batches) -> None:
        """Compute the network's running statistics again, at the mean of the trajectory."""
        recompute_running_statistics(self.model, self.point_estimate(), batches)

    def point_estimate(self) -> dict[str, torch.Tensor]:
        """Return the mean of the snapshots by site; the weights trained so far where there is none."""
        centre = self.mean if int(self.count) else self.loc
        return {name: value.detach() for name, value in self.unpack(centre).items()}

    def covariance_parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return W, shape (latent_dim, rank), and d, shape (latent_dim,): the covariance is W W' + diag(d).

        Returns
        -------
        factor, diagonal : Tensor

        Raises
        ------
        GuideError
            If there are fewer than two snapshots.
        """
        count = int(self.count) if self.prototype_trace is not None else 0
        if count < FEWEST:
            raise GuideError(
                f"SWAG needs {FEWEST} snapshots of a training, but has {count}. Train it with wiu_pyro.fit(model, "
                "guide, data) for at least one epoch of two steps."
            )
        kept = min(count, self.rank)
        factor = self.deviations[:kept].mT / math.sqrt(2 * (kept - 1))
        return factor, self.squares / (2 * count)

    def _loc_scale(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        factor, diagonal = self.covariance_parts()
        return self.mean, (factor.square().sum(1) + diagonal).sqrt()

    @property
    def gaussian_mean(self) -> torch.Tensor:
        """The mean of the snapshots, shape (latent_dim,)."""
        return self.mean

    def gaussian_blocks(self, structure: ModelStructure | None = None) -> tuple[Block, ...]:
        """Return the Gaussian as one block over all weights that moved."""
        key = (int(self.count), self.mean._version, self.mean.device)
        cached = self.__dict__.get("_blocks")
        if cached is None or cached[0] != key:
            factor, diagonal = self.covariance_parts()
            index = (diagonal > 0).nonzero()[:, 0]
            places = {name: place for name, place, _ in self.sites()}
            moved = tuple(
                layer.name
                for layer in self.structure.layers
                if any(bool((diagonal[places[site]] > 0).any()) for site in layer.sites.values())
            )
            precision = LowRankCovariance(factor[index], diagonal[index])
            cached = self.__dict__["_blocks"] = (key, (Block(moved, self.structure_name, precision, index),))
        return cached[1]

    @property
    def notes(self) -> dict[str, Any]:
        """What the file says beside: whose sds these are, and what they depend on."""
        return {
            "sd_of": "the trajectory of a constant learning rate, not Bayes' rule",
            "sd_learned": 0,
            "snapshots": int(self.count),
            "rank": min(int(self.count), self.rank),
            "trajectory_optimiser": self.optimiser,
            "trajectory_rate": self.trajectory_rate,
            "running_statistics": "at the mean, for all draws",
        }

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.Distribution:
        """Return the Gaussian over the flat vector of all weights; a Delta before there are two snapshots."""
        if int(self.count) < FEWEST:
            return dist.Delta(self.loc.detach(), event_dim=1)
        return TrajectoryNormal(self.mean, *self.covariance_parts(), self.gaussian_blocks())

    def log_prob(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log q of a draw, a float64 scalar in nats; weights that never moved do not count."""
        return self.get_posterior().log_prob(self.pack(weights)).double()


class TrajectoryNormal(dist.TorchDistribution):
    """Normal distribution with covariance W W' + diag(d), where d may be 0: such entries are fixed.

    Parameters
    ----------
    loc : Tensor, shape (numel,)
    factor : Tensor, shape (numel, rank)
    diagonal : Tensor, shape (numel,)
    blocks : tuple of Block
        The same of the entries that are not fixed, for the density.
    batch_shape : Size
        Independent copies, for vectorised plates.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: torch.Tensor,
        factor: torch.Tensor,
        diagonal: torch.Tensor,
        blocks: tuple[Block, ...],
        batch_shape: torch.Size = torch.Size(),  # noqa: B008
    ) -> None:
        self.loc, self.factor, self.diagonal, self.blocks = loc, factor, diagonal, blocks
        super().__init__(batch_shape, loc.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> TrajectoryNormal:
        """Return independent copies."""
        return TrajectoryNormal(self.loc, self.factor, self.diagonal, self.blocks, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Return draws of shape (*sample_shape, *batch_shape, numel): paper, equation 1."""
        shape = self._extended_shape(sample_shape)
        like = {"dtype": self.loc.dtype, "device": self.loc.device}
        own = torch.randn(shape, **like) * self.diagonal.sqrt()
        shared = torch.randn((*shape[:-1], self.factor.shape[1]), **like) @ self.factor.mT
        return self.loc + own + shared

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log density at values of shape (..., numel), in float64 nats."""
        delta = value - self.loc
        return sum(block.precision.log_prob(delta[..., block.index]) for block in self.blocks)


def _check(
    rank: int, snapshots: int, *, trajectory: float, optimiser: str, rate: float | None, momentum: float
) -> None:
    for name, value in (("rank", rank), ("snapshots", snapshots)):
        if value < FEWEST:
            raise GuideError(f"{name} must be at least {FEWEST}, but is {value}. The paper has rank 20.")
    if not 0 < trajectory <= 1:
        raise GuideError(f"trajectory must be a share of the steps, above 0 and at most 1, but is {trajectory}.")
    if optimiser not in OPTIMISERS:
        raise GuideError(f"Unknown optimiser '{optimiser}'. {near_matches(optimiser, OPTIMISERS)}")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise GuideError(f"trajectory_rate must be a positive number, but is {rate}. Leave it out for the default.")
    if not 0 <= momentum < 1:
        raise GuideError(f"momentum must be from 0 to below 1, but is {momentum}. Pass for example 0.9.")
