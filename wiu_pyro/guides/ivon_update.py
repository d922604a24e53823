"""The update of IVON on one flat vector of weights: momentum, Hessian, mean; written in place, without a site in it.

Shen et al. (2024), algorithm 1, with weight decay δ and rescaled learning rate for each weight. The step of the Hessian
keeps h + δ positive whatever its noise: with x = (1 − β₂) (ĥ − h) / (h + δ) it multiplies h + δ by 1 + x + x²/2 ≥ ½.

Where the learning rate is the natural gradient's, x and the means' steps are bounded: at the wide sds that a training
starts with, one gradient of a convolution is a thousand times those to come, and h would not come down again for
thousands of steps. Near the optimum steps are far below the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from wiu_pyro.guides.flat_prior import FlatPrior

if TYPE_CHECKING:
    from wiu_pyro.guides.ivon import AutoIVON

__all__ = ["IVONUpdate", "Target"]

ADAM_RATE = 1e-3  # of parameters without a prior
LONGEST_STEP = 0.1  # of a mean, in units of its posterior sd; at the optimum, 1e-2 and batches of 128 of 60,000, 0.05
LARGEST_CHANGE = 0.5  # of x: a step multiplies h + δ by 13/8 at most


@dataclass(frozen=True)
class Target:
    """Data and prior as the update sees them.

    Attributes
    ----------
    prior : FlatPrior
    ess : float
        λ, the number of data over the temperature.
    temperature : float
        Of the KL, its present weight included.
    decay : Tensor, shape (latent_dim,)
        δ: the prior's precision over λ; 0 where the prior is not Normal.
    log_decay_sum : float
        Σ log δ over the Normal ones.
    """

    prior: FlatPrior
    ess: float
    temperature: float
    decay: torch.Tensor
    log_decay_sum: float

    @classmethod
    def of(cls, prior: FlatPrior, num_data: float, temperature: float) -> Target:
        """Return the target of so many data at a temperature."""
        ess = num_data / temperature
        decay = prior.scale.square().mul_(ess).reciprocal_()
        if not prior.all_normal:
            decay *= prior.normal
        log_sum = -2 * prior.log_scale_sum - prior.num_normal * math.log(ess)
        return cls(prior, ess, temperature, decay, log_sum)

    def shift(self, loc: torch.Tensor) -> torch.Tensor:
        """Return the means' distance from the prior's, shape (latent_dim,); `loc` itself where those are zero."""
        return loc if self.prior.centred else loc - self.prior.loc

    def divergence(self, loc: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
        """Return KL(q ‖ prior) in nats at h + δ = `precision`; of another prior than Normal, −H(q) alone."""
        # prior precision λδ, posterior λ(h + δ): half of λδ (m − m₀)² + δ / (h + δ) − 1 + log((h + δ) / δ)
        shift = self.shift(loc)
        spread = torch.dot(self.decay, precision.reciprocal())
        squares = torch.dot(shift * self.decay, shift).mul_(self.ess)
        logs = _log_sum(precision) - self.log_decay_sum
        others = len(loc) - self.prior.num_normal
        constant = self.prior.num_normal - others * (math.log(self.ess) - math.log(2 * math.pi) - 1)
        return 0.5 * (spread + squares + logs - constant)


class IVONUpdate(torch.optim.Optimizer):
    """The optimiser of an `AutoIVON`; what it keeps between steps lies in the guide's buffers.

    Parameters
    ----------
    guide : AutoIVON
    others : list of Tensor
        Parameters without a prior, for Adam.
    learning_rate : float
        Of the weights.
    """

    def __init__(self, guide: AutoIVON, others: list[torch.Tensor], *, learning_rate: float) -> None:
        super().__init__([guide.loc, guide.stretch], {"lr": learning_rate})
        self.guide = guide
        self.adam = torch.optim.Adam(others, lr=ADAM_RATE, fused=True) if others else None
        if self.adam is not None:
            self.param_groups += self.adam.param_groups  # its own: a schedule's rate is Adam's

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move momentum, Hessian and mean by the gradients at hand."""
        guide, rate = self.guide, self.param_groups[0]["lr"]
        target = guide.in_force
        keep, slow = guide.betas
        guide.num_steps += 1
        debias = 1 - keep ** guide.num_steps.item()
        bound = math.inf if guide.rescaled else LARGEST_CHANGE
        _move_hessian(guide.hess, guide.stretch.grad, target=target, share=1 - slow, bound=bound)
        guide.momentum.lerp_(guide.loc.grad, 1 - keep)  # of the loss summed over the data
        precision = guide.hess + target.decay
        step = target.shift(guide.loc) * target.decay
        step.add_(guide.momentum, alpha=1 / (target.ess * target.temperature * debias)).div_(precision)
        if guide.clip_radius != math.inf:
            step.clamp_(-guide.clip_radius, guide.clip_radius)
        if guide.rescaled:
            guide.loc.addcmul_(step, guide.start_precision, value=-rate)
        else:
            longest = precision.mul_(target.ess).rsqrt_().mul_(LONGEST_STEP)
            guide.loc.sub_(torch.clamp(step.mul_(rate), -longest, longest))
        if self.adam is not None:
            self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what is not in the guide: the state of Adam."""
        return {"adam": None if self.adam is None else self.adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        if self.adam is not None:
            self.adam.load_state_dict(state_dict["adam"])


def _log_sum(values: torch.Tensor) -> torch.Tensor:
    """Return Σ log; by pairs, for a logarithm costs many products: values must lie between 1e-19 and 1e19."""
    half = len(values) // 2
    pairs = values[:half] * values[half : 2 * half]
    return pairs.log_().sum() + values[2 * half :].log().sum()


def _move_hessian(
    hess: torch.Tensor, product: torch.Tensor, *, target: Target, share: float, bound: float = math.inf
) -> None:
    """Take a step of h in place, from noise times the gradient of the summed loss, which is used up; |x| ≤ `bound`.

    With λ = N / T, ĥ = product (h + δ) / T, so (ĥ − h) / (h + δ) = product / T − h / (h + δ).
    """
    precision = hess + target.decay
    product.mul_(share / target.temperature).addcdiv_(hess, precision, value=-share)  # x
    if bound != math.inf:
        product.clamp_(-bound, bound)
    product.addcmul_(product, product, value=0.5)
    hess.addcmul_(precision, product)
