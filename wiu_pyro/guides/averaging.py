"""Curvature averaged over a posterior's outputs, in place of the curvature at the weights' mode.

At the mode of a sure classifier the likelihood's Hessian is almost zero, and a Laplace approximation is too wide. Of
all Gaussians of the same mean the best for the linearised network has the precision Q + Σ_n J_n' E_q[H(f_n)] J_n, with
H averaged over the posterior's own outputs (Opper and Archambeau 2009): a fixed point, here reached in damped rounds,
each a step of variational online Newton (Khan and Rue 2023) with the mean held. An output f drawn from q and a label y
drawn at f give a column dl/df(f, y), and E[dl/df dl/df'] = E_q[H(f)]: an averaged curvature costs as many columns as
draws.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch

from wiu_pyro.curvature import Accumulated, OutputLikelihood, Processes
from wiu_pyro.linalg import covariance_root

__all__ = ["AVERAGED", "Averaging"]

AVERAGED = "ggn_averaged"  # what such a curvature is called

Batch = tuple[torch.Tensor, ...]
Sums = dict[str, dict[str, torch.Tensor]]


class Averaging:
    """What one round of averaging changes in a curvature pass.

    Parameters
    ----------
    spread : callable
        Maps a batch to mean, shape (batch, outputs), and covariance, shape (batch, outputs, outputs), of its outputs.
    num_draws : int
        Outputs drawn per datum.
    rate : float
        Weight of this round's curvature against that of the rounds before.
    before : dict of str to dict of str to Tensor
        Sums of each part of the posterior after the round before; empty in the first, whose weight is 1.
    """

    def __init__(
        self,
        spread: Callable[[Batch], tuple[torch.Tensor, torch.Tensor]],
        *,
        num_draws: int,
        rate: float,
        before: Sums,
    ) -> None:
        self.spread, self.num_draws, self.rate, self.sums = spread, num_draws, rate, before
        self.generator: torch.Generator | None = None
        self._variance, self._seen = 0.0, 0

    @property
    def mean_variance(self) -> float:
        """Variance of an output under the posterior that the round began with, averaged over data and outputs.

        Of all processes' data, which all must ask for it: rounds end in each at the same number.
        """
        found = Processes.present().gather((self._variance, self._seen))
        return sum(variance for variance, _ in found) / max(1, sum(seen for _, seen in found))

    def columns(self, likelihood: OutputLikelihood, batch: Batch) -> torch.Tensor:
        """Return the columns to pass backwards, shape (num_draws, batch, outputs)."""
        mean, covariance = self.spread(batch)
        self._variance += covariance.diagonal(dim1=-2, dim2=-1).double().mean(-1).sum().item()
        self._seen += len(mean)
        if self.generator is None:  # the same draws in every round, others in each process
            self.generator = torch.Generator(mean.device).manual_seed(Processes.present().rank)
        root = covariance_root(covariance)  # (batch, outputs, outputs)
        found = []
        for _ in range(self.num_draws):
            noise = torch.randn(mean.shape, generator=self.generator, dtype=mean.dtype, device=mean.device)
            drawn = copy.copy(likelihood)
            drawn.output = mean + torch.einsum("ncd,nd->nc", root, noise)
            found.append(drawn.residual(drawn.sample_labels(self.generator)))
        return torch.stack(found) / self.num_draws**0.5

    def blend(self, parts: Mapping[str, Accumulated]) -> None:
        """Mix what the pass has summed with what the rounds before left, in place."""
        for name, part in parts.items():
            if self.sums:
                old = self.sums[name]
                part.load_sums({key: torch.lerp(old[key], new, self.rate) for key, new in part.sums().items()})
        self.sums = {name: {key: value.clone() for key, value in part.sums().items()} for name, part in parts.items()}
