"""Rounds of a Laplace posterior whose curvature is averaged over the posterior's own outputs."""

from __future__ import annotations

import warnings

import torch

from wiu_pyro.errors import GuideError
from wiu_pyro.guides import AutoBlockNormal, AutoSubnetworkLaplace
from wiu_pyro.guides.averaging import Averaging
from wiu_pyro.guides.laplace import LaplaceGuide
from wiu_pyro.infer.functional import functional_distribution
from wiu_pyro.nn import Batches, as_batches

__all__ = ["average_curvature"]

RATE = 0.5  # of a round's curvature in the mixture; without damping the rounds swing between too wide and too narrow
NUM_DRAWS = 4
SETTLED = 0.02  # relative change of the outputs' variance from one round to the next


def average_curvature(
    guide: LaplaceGuide, posterior: AutoBlockNormal, batches: Batches, *, rounds: int
) -> AutoBlockNormal:
    """Return the posterior whose curvature is averaged over its own outputs, the prior tuned again in each round.

    With the mean held at the point estimate, the fixed point of a diagonal, block or full structure is a stationary
    point of the linearised network's evidence lower bound in the covariance, to the noise of the draws; Kronecker
    factors stand for a layer's block there as they do in Laplace. Where the guide tunes its prior by marginal
    likelihood (after the fit, not online), the bound is stationary in the prior's scales in any structure.

    Parameters
    ----------
    guide : LaplaceGuide
        With its point estimate, in a structure that takes one pass.
    posterior : AutoBlockNormal
        What `laplace_approximation` returned: where the rounds begin.
    batches : Batches
        The training data, gone through once in each round, beside the functional covariances.
    rounds : int
        At most so many; fewer once the outputs' variance changes by less than 2 %.

    Returns
    -------
    AutoBlockNormal
        Its curvature's kind is ``"ggn_averaged"``; a Normal likelihood, whose curvature depends on no output, gives
        the posterior itself.

    Raises
    ------
    GuideError
        If the structure takes two passes, or the curvature is not the exact GGN; if weights are chosen by variance.
    """
    if guide.structure.likelihood == "normal":
        return posterior
    _refuse(guide)
    present, sums, history = posterior, {}, []

    def spread(batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        found = next(functional_distribution(guide.model, present, as_batches(batch, batch_size=len(batch[0]))))
        return found.mean, found.covariance

    for _ in range(rounds):
        guide.averaging = Averaging(spread, num_draws=NUM_DRAWS, rate=RATE, before=sums)
        try:
            following = guide.laplace_approximation(batches)
            sums = guide.averaging.sums
            history.append(guide.averaging.mean_variance)
        finally:
            guide.averaging = None
        present = following
        if len(history) > 1 and abs(history[-1] / history[-2] - 1) < SETTLED:
            return present
    before = f"from {history[-2]:.3g} " if rounds > 1 else ""
    warnings.warn(
        f"The averaged curvature was to settle, but after {rounds} rounds the outputs' variance went {before}to "
        f"{history[-1]:.3g}. Allow more: curvature_rounds={2 * rounds}.",
        stacklevel=2,
    )
    return present


def _refuse(guide: LaplaceGuide) -> None:
    """Raise GuideError for what would not be the same from round to round, or is no GGN."""
    if guide.config.kind != "ggn":
        raise GuideError(
            f"A curvature is averaged over outputs in place of the exact GGN, but '{guide.config.kind}' was asked for. "
            'Use curvature="ggn" with no column_tolerance.'
        )
    if any(part.num_passes > 1 for part in guide.new_parts().values()):
        raise GuideError(
            "A curvature is averaged in structures that take one pass over the data, but eigenvalue-corrected factors "
            'take two, each time in another basis. Use "kfac", "diagonal" or "full".'
        )
    if isinstance(guide, AutoSubnetworkLaplace) and guide.select == "largest-variance":
        raise GuideError(
            "Rounds of averaging need the same weights in each, but those of largest variance differ from round to "
            'round. Choose them by masks or by select="largest-magnitude".'
        )
