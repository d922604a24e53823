"""The KL of independent Normals with its gradient written out, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from wiu_pyro.guides.flat_prior import FlatPrior
from wiu_pyro.guides.normal_kl import moments_and_kl, site_kl

F64 = torch.float64


def leaf(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("prior_loc", [0.0, 0.7])
def test_flat_kl_and_gradients_are_those_of_torch(prior_loc):
    loc, log_scale = leaf(6, seed=0), leaf(6, seed=1)
    sd = torch.linspace(0.5, 2.0, 6, dtype=F64)
    everywhere, log_sum = torch.ones(6, dtype=torch.bool), sd.log().sum().item()
    prior = FlatPrior(torch.full((6,), prior_loc, dtype=F64), sd, everywhere, 6, log_sum)
    found = []
    for fast in (True, False):
        if fast:
            mean, scale, divergence = moments_and_kl(loc, log_scale, prior)
        else:
            mean, scale = loc, log_scale.exp()
            divergence = kl_divergence(Normal(mean, scale), Normal(prior.loc, prior.scale)).sum()
        loss = 3 * divergence + (mean.sin() * scale).sum()  # all three outputs have a gradient
        found.append((divergence, *torch.autograd.grad(loss, [loc, log_scale])))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


PRIORS = {
    "number": (torch.tensor(0.3, dtype=F64), torch.tensor(2.0, dtype=F64)),
    "expanded": (torch.tensor(0.3, dtype=F64).expand(2, 3), torch.tensor(2.0, dtype=F64).expand(2, 3)),
    "each": (leaf(2, 3, seed=4).detach(), leaf(2, 3, seed=5).detach().exp()),
    "learned": (leaf(2, 3, seed=4), leaf(2, 3, seed=5).detach().exp().requires_grad_()),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_kl_of_a_site_and_gradients_are_those_of_torch(kind):
    loc, scale = leaf(2, 3, seed=0), leaf(2, 3, seed=1).detach().exp().requires_grad_()
    prior_loc, prior_scale = PRIORS[kind]
    wanted = [one for one in (loc, scale, prior_loc, prior_scale) if one.requires_grad]
    fast = site_kl(loc, scale, prior_loc, prior_scale)
    slow = kl_divergence(Normal(loc, scale), Normal(prior_loc, prior_scale)).sum()
    torch.testing.assert_close(fast, slow)
    for one, other in zip(torch.autograd.grad(2 * fast, wanted), torch.autograd.grad(2 * slow, wanted)):
        torch.testing.assert_close(one, other)
