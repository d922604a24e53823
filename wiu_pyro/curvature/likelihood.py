"""The likelihood as the curvature sees it: natural outputs, and square roots of the Hessian with respect to them.

For an output f of one datum and its negative log-likelihood l(f), the generalised Gauss-Newton matrix of the weights is
J' H J with J = df/dw and H = d²l/df² (Schraudolph 2002; Martens 2020, section 8). A matrix S with S S' = H, whose
columns are passed backwards through the network, is all the Kronecker factors need. Sampled and empirical Fisher
matrices come from the same place: their columns are gradients of l at sampled or at observed labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import distributions as td
from typing_extensions import override

from wiu_pyro.errors import LikelihoodError

__all__ = [
    "CURVATURE_KINDS",
    "BernoulliOutput",
    "CategoricalOutput",
    "NormalOutput",
    "OutputLikelihood",
    "read",
    "refuse_masks",
]

CURVATURE_KINDS = ("ggn", "fisher_mc", "fisher_empirical")


class OutputLikelihood(ABC):
    """A likelihood with its natural output; built by `read` from the observed site's distribution.

    Attributes
    ----------
    output : Tensor, shape (batch, outputs)
        Logits or means, on the autograd graph of the weights.
    """

    kind: str

    def __init__(self, output: torch.Tensor) -> None:
        self.output = output

    @property
    def num_columns(self) -> int:
        """Columns of the square root of the Hessian."""
        return self.output.shape[-1]

    @abstractmethod
    def sqrt_hessian(self, which: slice = slice(None)) -> torch.Tensor:
        """Return the square root S of the Hessian of each datum, detached: Σ_k S_k S_k' = d²l/df².

        Parameters
        ----------
        which : slice
            Of the columns; all of many classes at once may take more memory than the network does.

        Returns
        -------
        Tensor, shape (columns, batch, outputs)
        """

    @abstractmethod
    def residual(self, labels: torch.Tensor) -> torch.Tensor:
        """Return dl/df of shape (batch, outputs), detached, at the given labels."""

    @abstractmethod
    def sample_labels(self, generator: torch.Generator | None) -> torch.Tensor:
        """Draw one label per datum from the likelihood at the present output."""

    def columns(
        self, kind: str, *, labels: torch.Tensor | None, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return the columns to pass backwards, of shape (columns, batch, outputs), for a kind of curvature.

        Parameters
        ----------
        kind : {"ggn", "fisher_mc", "fisher_empirical"}
        labels : Tensor, shape (batch, ...)
            The observed labels; only the empirical Fisher looks at them.
        num_samples : int
            Labels drawn per datum, for ``"fisher_mc"``.
        generator : Generator, optional
            For ``"fisher_mc"``.

        Returns
        -------
        Tensor, shape (columns, batch, outputs)

        Raises
        ------
        LikelihoodError
            If the kind is unknown, or the empirical Fisher gets no labels.
        """
        if kind == "ggn":
            return self.sqrt_hessian()
        if kind == "fisher_mc":
            draws = [self.residual(self.sample_labels(generator)) for _ in range(num_samples)]
            return torch.stack(draws) / num_samples**0.5
        if kind == "fisher_empirical":
            if labels is None:
                raise LikelihoodError("The empirical Fisher needs labels, but the data have none. Pass (x, y) batches.")
            return self.residual(labels)[None]
        raise LikelihoodError(f"Unknown curvature '{kind}'. Known: {', '.join(CURVATURE_KINDS)}.")


class CategoricalOutput(OutputLikelihood):
    """Softmax likelihood; the output holds logits, H = diag(p) − p p'.

    H has rank classes − 1, and so many columns has its root: in closed form, the Cholesky factor of the classes ordered
    by falling probability. With the tails t_k = Σ_{j>k} p_j, column k is sqrt(p_k t_k / t_{k-1}) (e_k − Σ_{j>k} p_j e_j
    / t_k). A sure network's first columns hold almost all of it.
    """

    kind = "categorical"
    _factor: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def _probs(self) -> torch.Tensor:
        return torch.softmax(self.output.detach(), dim=-1)

    @property
    @override
    def num_columns(self) -> int:
        return max(1, self.output.shape[-1] - 1)

    def _ordered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return order, probabilities, tails and root of the diagonal, each of shape (batch, classes)."""
        if self._factor is None:
            probs, order = self._probs().sort(-1, descending=True)
            from_here = probs.flip(-1).cumsum(-1).flip(-1)  # summed from the smallest: small tails stay exact
            tails = torch.cat([from_here[:, 1:], torch.zeros_like(probs[:, :1])], -1)
            tiny = torch.finfo(probs.dtype).tiny
            pivots = (probs * (tails / from_here.clamp_min(tiny))).sqrt()
            self._factor = order, probs, tails.clamp_min(tiny), pivots
        return self._factor

    @override
    def sqrt_hessian(self, which: slice = slice(None)) -> torch.Tensor:
        order, probs, tails, pivots = self._ordered()
        start, stop, _ = which.indices(self.num_columns)
        steps = (pivots / tails).T[start:stop, :, None]
        places = torch.arange(probs.shape[-1], device=probs.device)
        later = places > places[start:stop, None, None]  # (columns, 1, classes)
        columns = torch.where(later, -probs * steps, 0.0)  # (columns, batch, classes), in order
        columns.diagonal(start, 0, 2).copy_(pivots[:, start:stop])
        return torch.empty_like(columns).scatter_(2, order.expand_as(columns), columns)

    @override
    def residual(self, labels: torch.Tensor) -> torch.Tensor:
        probs = self._probs()
        if labels.dim() == 1:
            labels = torch.nn.functional.one_hot(labels.long(), probs.shape[-1])
        return probs - labels.to(probs.dtype)

    @override
    def sample_labels(self, generator: torch.Generator | None) -> torch.Tensor:
        return torch.multinomial(self._probs(), 1, generator=generator)[:, 0]


class BernoulliOutput(OutputLikelihood):
    """Independent Bernoulli likelihoods; the output holds logits, H = diag(p (1 − p))."""

    kind = "bernoulli"

    def _probs(self) -> torch.Tensor:
        return torch.sigmoid(self.output.detach())

    @override
    def sqrt_hessian(self, which: slice = slice(None)) -> torch.Tensor:
        probs = self._probs()
        return _diagonal_columns((probs * (1 - probs)).sqrt(), which)

    @override
    def residual(self, labels: torch.Tensor) -> torch.Tensor:
        probs = self._probs()
        return probs - labels.reshape(probs.shape).to(probs.dtype)

    @override
    def sample_labels(self, generator: torch.Generator | None) -> torch.Tensor:
        return torch.bernoulli(self._probs(), generator=generator)


class NormalOutput(OutputLikelihood):
    """Independent Normal likelihoods of known noise; the output holds means, H = diag(1 / noise²)."""

    kind = "normal"

    def __init__(self, output: torch.Tensor, noise_scale: torch.Tensor) -> None:
        super().__init__(output)
        self.noise_scale = noise_scale.detach().expand(output.shape)

    @override
    def sqrt_hessian(self, which: slice = slice(None)) -> torch.Tensor:
        return _diagonal_columns(1 / self.noise_scale, which)

    @override
    def residual(self, labels: torch.Tensor) -> torch.Tensor:
        return (self.output.detach() - labels.reshape(self.output.shape)) / self.noise_scale**2

    @override
    def sample_labels(self, generator: torch.Generator | None) -> torch.Tensor:
        noise = torch.randn(self.output.shape, generator=generator, dtype=self.output.dtype, device=self.output.device)
        return self.output.detach() + noise * self.noise_scale


def _diagonal_columns(roots: torch.Tensor, which: slice) -> torch.Tensor:
    # (batch, outputs) -> (columns, batch, outputs), each column zero but at its own output
    start, stop, _ = which.indices(roots.shape[-1])
    columns = roots.new_zeros(stop - start, *roots.shape)
    columns.diagonal(start, 0, 2).copy_(roots[:, start:stop])
    return columns


def _base(distribution: td.Distribution) -> td.Distribution:
    while hasattr(distribution, "base_dist") and not isinstance(distribution, td.TransformedDistribution):
        distribution = distribution.base_dist
    return distribution


def refuse_masks(distribution: td.Distribution, mask: torch.Tensor | bool | None = None) -> None:
    """Raise where labels are left out by a mask: a curvature would count them.

    Parameters
    ----------
    distribution : Distribution
        Of the observed site.
    mask : Tensor of bool, bool or None
        That of `pyro.poutine.mask` at the site.

    Raises
    ------
    LikelihoodError
        If there is a mask other than True.
    """
    found: Any = distribution
    masks = [mask]
    while found is not None:
        masks.append(getattr(found, "_mask", None))
        found = getattr(found, "base_dist", None)
    if any(one is not None and one is not True for one in masks):
        raise LikelihoodError(
            "A curvature needs labels that all count, but the observed site has a mask. Leave the masked data out of "
            'the batches, or use curvature="hessian" (AutoFullLaplace), or mean-field VI, which take masks.'
        )


def read(distribution: td.Distribution) -> OutputLikelihood:
    """Read the likelihood off the distribution of the observed site.

    Parameters
    ----------
    distribution : Distribution
        Batch shape (batch,), or (batch, outputs) before ``to_event``.

    Returns
    -------
    OutputLikelihood

    Raises
    ------
    LikelihoodError
        If the distribution is not one of those known, or has more than one categorical per datum.
    """
    base = _base(distribution)
    if isinstance(base, td.Categorical | td.OneHotCategorical):
        if base.logits.dim() != 2:
            raise LikelihoodError(
                "One categorical label per datum is needed, logits of shape (batch, classes), but the logits have "
                f"shape {tuple(base.logits.shape)}. Reduce the network's output to one row per datum."
            )
        return CategoricalOutput(base.logits)
    if isinstance(base, td.Bernoulli):
        return BernoulliOutput(base.logits.reshape(len(base.logits), -1))
    if type(base).__name__ == "Normal" and isinstance(base, td.Normal):
        if base.scale.requires_grad:
            raise LikelihoodError(
                "A Normal likelihood needs a noise scale that does not depend on the weights, but the observed site's "
                "scale does. Use a known noise, or one with a prior of its own (a site 'noise_scale')."
            )
        shape = base.loc.shape
        return NormalOutput(base.loc.reshape(shape[0], -1), base.scale.expand(shape).reshape(shape[0], -1))
    raise LikelihoodError(
        f"The curvature knows the likelihoods Categorical, OneHotCategorical, Bernoulli and Normal, but the observed "
        f"site has a {type(base).__name__}. Use one of these, or mean-field VI, which takes any likelihood."
    )
