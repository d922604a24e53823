r"""The Laplace approximation to the log marginal likelihood, differentiable in the prior's scales.

With the point estimate w*, the posterior precision Λ = H / T + Q, the prior N(m, Q⁻¹) and P weights,

    log p(D) ≈ log p(D | w*) / T + log p(w*) + P/2 log 2π − ½ log det Λ,

which is exact for a Gaussian posterior at its mode. T = 1 is Bayes. At another temperature the posterior is
proportional to p(D | w)^(1/T) p(w), and this is the log of its normalising constant: as elsewhere in the toolkit T
changes the weight of the prior against the data and leaves the prior as it is. It compares priors at one temperature;
it does not choose the temperature, since p(D | w)^(1/T) is no density of the data.

References
----------
MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks.
Immer et al. (2021), Scalable Marginal Likelihood Estimation for Model Selection in Deep Learning, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from wiu_pyro.errors import CurvatureError, GuideError
from wiu_pyro.guides.averaging import AVERAGED
from wiu_pyro.guides.block_normal import AutoBlockNormal
from wiu_pyro.guides.blocks import Block
from wiu_pyro.guides.prior_scales import Scale, match_scales

__all__ = ["Evidence", "log_marginal_likelihood"]

NO_GROUP = "\0present"  # sites whose scale stays as it is


@dataclass(frozen=True)
class _Term:
    """One block: its sites, and for each site its number of weights and Σ q (w* − m)²."""

    block: Block
    sites: tuple[str, ...]
    owner: torch.Tensor  # (numel,), position in `sites` of each variable
    counts: torch.Tensor  # (len(sites),), float64
    squares: torch.Tensor  # (len(sites),), float64, at the present prior precision q
    precision: torch.Tensor  # (numel,), q, float64


class Evidence:
    """The log marginal likelihood of a Laplace posterior as a function of its prior's scales.

    What the scales do not change is computed once; a call then costs the log determinants.

    Parameters
    ----------
    posterior : AutoBlockNormal
        What ``laplace_approximation`` returned, from data with labels.

    Raises
    ------
    GuideError
        If the posterior is no Laplace approximation, or the pass saw no labels.
    """

    def __init__(self, posterior: AutoBlockNormal) -> None:
        if not isinstance(posterior, AutoBlockNormal):
            raise GuideError(
                "A log marginal likelihood needs the guide that laplace_approximation returned, but this is a "
                f"{type(posterior).__name__}. Pass fit.guide of a fitted Laplace guide, for example AutoKFACLaplace."
            )
        record = posterior.curvature
        if record is None or record.log_likelihood is None:
            raise GuideError(
                "A log marginal likelihood needs the likelihood of the data at the point estimate, but the curvature "
                "was computed from inputs alone. Pass labels too: laplace_approximation(x, y)."
            )
        self.posterior = posterior
        self.log_likelihood = record.log_likelihood / posterior.temperature
        self.present = {site: posterior.prior_scales.get(site, 1.0) for site in posterior.posterior_sites()}
        self._terms = [self._term(block) for block in posterior.blocks]

    def _term(self, block: Block) -> _Term:
        prior = self.posterior.flat_prior()
        precision = prior.scale[block.index].double() ** -2
        squares = precision * (self.posterior.loc[block.index] - prior.loc[block.index]).double().square()
        starts = torch.tensor([place.start for _, place, _ in self.posterior.sites()], device=block.index.device)
        number = torch.bucketize(block.index, starts, right=True) - 1
        numbers = torch.bincount(number, minlength=len(starts)).nonzero()[:, 0]
        owner = torch.searchsorted(numbers, number)
        names = [name for name, *_ in self.posterior.sites()]
        zeros = torch.zeros(len(numbers), dtype=torch.float64, device=block.index.device)
        return _Term(
            block,
            tuple(names[number] for number in numbers.tolist()),
            owner,
            zeros.index_add(0, owner, torch.ones_like(squares)),
            zeros.index_add(0, owner, squares),
            precision,
        )

    def __call__(self, scale: Scale | Mapping[str, Scale] | None = None) -> torch.Tensor:
        """Return the log marginal likelihood in nats.

        Parameters
        ----------
        scale : float, scalar Tensor, or mapping of pattern to such, optional
            Multiplies the sd of the model's prior, as in `AutoBlockNormal.with_prior`; the present prior when None.

        Returns
        -------
        Tensor
            Float64 scalar, on the graph of `scale`. NaN where a Hessian's negative curvature outweighs the prior.
        """
        posterior = self.posterior
        found = {} if scale is None else match_scales(scale, posterior.structure, list(self.present))
        total = torch.tensor(self.log_likelihood, dtype=torch.float64, device=posterior.loc.device)
        for term in self._terms:
            groups = [found.get(site, (NO_GROUP, self.present[site])) for site in term.sites]
            # prior precision relative to the present one, by site
            factors = [
                (self.present[site] / torch.as_tensor(value, dtype=torch.float64, device=total.device)) ** 2
                for site, (_, value) in zip(term.sites, groups, strict=True)
            ]
            factor = torch.stack(factors)
            prior = term.counts * factor.log() - factor * term.squares
            total = total + 0.5 * (prior.sum() + term.precision.log().sum() - self._log_det(term, groups, factor))
        return total

    def _log_det(self, term: _Term, groups: list[tuple[str, Scale]], factor: torch.Tensor) -> torch.Tensor:
        if all(pattern == NO_GROUP for pattern, _ in groups):
            return term.block.precision.log_det()
        present = {self.present[site] for site in term.sites}
        if len({pattern for pattern, _ in groups}) == 1 and len(present) == 1:
            return term.block.precision.log_det_scaled(factor[0])
        try:
            return term.block.precision.log_det_at(factor[term.owner] * term.precision)
        except CurvatureError:  # not positive definite
            return factor.new_full((), torch.nan)


def log_marginal_likelihood(
    posterior: AutoBlockNormal, prior_scale: Scale | Mapping[str, Scale] | None = None
) -> torch.Tensor:
    """Return the Laplace approximation to log p(D), the evidence, in nats.

    For weights that stay at a point estimate it is that of the rest, given them.

    Parameters
    ----------
    posterior : AutoBlockNormal
        What ``laplace_approximation`` returned, or ``fit(...).guide``.
    prior_scale : float, scalar Tensor, or mapping of pattern to such, optional
        Multiplies the sd of the model's prior, for all weights or by layer or site name; the prior in force when None.
        The point estimate stays where it is, as in MacKay's and Immer's iterations.

    Returns
    -------
    Tensor
        Float64 scalar on the graph of `prior_scale`.

    Raises
    ------
    GuideError
        If the posterior is no Laplace approximation, its curvature is averaged, or the pass saw no labels.
    PriorError
        If a scale is not positive, a pattern matches nothing, or the structure cannot take such a prior.

    Examples
    --------
    >>> import torch, wiu_pyro as wiu
    >>> model = wiu.nn.BayesianNetwork(torch.nn.Linear(4, 3), num_data=8)
    >>> data = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    >>> posterior = wiu.fit(model, wiu.guides.AutoKFACLaplace(model), data, epochs=0).guide
    >>> scale = torch.tensor(1.0, requires_grad=True)
    >>> log_marginal_likelihood(posterior, scale).backward()
    >>> scale.grad.shape
    torch.Size([])
    """
    evidence = Evidence(posterior)
    if posterior.curvature is not None and posterior.curvature.kind == AVERAGED:
        raise GuideError(
            "Laplace's evidence needs the curvature at the weights' mode, but this one is averaged over outputs. "
            "Fit with curvature_rounds=0 for it."
        )
    return evidence(prior_scale)
