"""An ensemble: networks trained apart from different seeds and fresh weights, each with a posterior of its own.

Lakshminarayanan et al. (2017), Simple and Scalable Predictive Uncertainty Estimation Using Deep Ensembles, has point
estimates for members; Wilson and Izmailov (2020), Bayesian Deep Learning and a Probabilistic Perspective of
Generalization, Gaussians around each. What an ensemble says is the mixture of what its members say, all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.infer.autoguide.guides import AutoGuide
from torch import nn

from wiu_pyro.errors import GuideError, a_name
from wiu_pyro.guides.network_guide import NetworkGuide
from wiu_pyro.guides.point_estimate import AutoPointEstimate
from wiu_pyro.guides.start import init_to_network
from wiu_pyro.guides.trained_by import refuse_svi, refuse_uncallable

__all__ = ["PREFIX", "AutoEnsemble", "ensemble_class"]

PREFIX = "ensemble"  # of the short names of ensembles


class AutoEnsemble(AutoGuide):
    """Several posteriors of one network, trained from different seeds and fresh weights, as one mixture.

    Trained by `wiu_pyro.fit` alone, which trains the members one after the other; `SVI` cannot. Weights of two members
    do not correspond, as hidden units have no order: a draw is a draw of one member, chosen at random.

    Parameters
    ----------
    model : callable
        A Pyro model.
    member : callable, optional
        Makes the guide of one member from the model: a guide class, or a function such as
        ``lambda model: AutoKFACLaplace(model, curvature="fisher_mc")``; `AutoPointEstimate` when None: a deep ensemble.
    size : int
        Number of members, at least 2.
    init : callable, optional
        Gives a copy of the network fresh weights in place. When None, the ``reset_parameters`` of its modules do.

    Raises
    ------
    GuideError
        If there are fewer than two members, or `member` makes no guide or another ensemble.

    Examples
    --------
    >>> import wiu_pyro as wiu
    >>> model = wiu.nn.BayesianNetwork(nn.Linear(4, 3), num_data=8)
    >>> guide = AutoEnsemble(model, size=3)
    >>> fit = wiu.fit(model, guide, (torch.ones(8, 4), torch.zeros(8).long()), epochs=1)
    >>> len(fit.members), wiu.infer.predict(fit, torch.ones(2, 4)).mean.shape
    (3, (2, 3))
    """

    cli_name: ClassVar[str] = PREFIX
    trained_by: ClassVar[str] = "fit"
    member_class: ClassVar[Callable[..., AutoGuide] | None] = None

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        member: Callable[..., AutoGuide] | None = None,
        size: int = 5,
        init: Callable[[nn.Module], Any] | None = None,
    ) -> None:
        if size < 2:
            raise GuideError(f"An ensemble needs at least 2 members, but size is {size}. Pass for example 5.")
        refuse_uncallable(model)
        if member is not None and (isinstance(member, AutoGuide) or not callable(member)):
            raise GuideError(
                f"member= must be what makes a member's guide, but is {a_name(member)}. Pass the class, as in "
                "member=wiu_pyro.guides.AutoKFACLaplace, or a function: lambda model: AutoLowRank(model, rank=2)."
            )
        super().__init__(model)
        self.make = member or type(self).member_class or AutoPointEstimate
        self.size = size
        self.init = init
        self.members = nn.ModuleList()
        self.event_dims: dict[str, int] = {}

    def new_member(self) -> AutoGuide:
        """Return the untrained guide of one member."""
        member = self.make(self.model)
        if not isinstance(member, AutoGuide) or isinstance(member, AutoEnsemble):
            raise GuideError(
                f"member= must make a guide for one network, but gave {a_name(member)}. Pass a class such as "
                "wiu_pyro.guides.AutoKFACLaplace, or a function of the model."
            )
        return member

    def join(self, members: Sequence[AutoGuide], event_dims: dict[str, int]) -> None:
        """Take trained posteriors for members.

        Parameters
        ----------
        members : sequence of AutoGuide
        event_dims : dict of site to int
            Number of dims of one value of each site.
        """
        self.members = nn.ModuleList(members)
        self.event_dims = dict(event_dims)

    @property
    def default_predictive(self) -> str:
        """The predictive that the members use by default."""
        return getattr(self.members[0], "default_predictive", "sampled") if len(self.members) else "sampled"

    @property
    def temperature(self) -> float:
        """The members' temperature."""
        return float(getattr(self.members[0], "temperature", 1.0)) if len(self.members) else 1.0

    @property
    def objective(self) -> str:
        """What the members were trained by, in words."""
        return getattr(self.members[0], "objective", "-ELBO") if len(self.members) else "-ELBO"

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Sample the weights of a member chosen at random; in a vectorised plate of one for each of its elements.

        Parameters
        ----------
        *args, **kwargs
            What the model is called with.

        Returns
        -------
        dict of site to Tensor

        Raises
        ------
        GuideError
            If it is not trained, or called in a step of Pyro's `SVI`.
        """
        if not len(self.members):
            raise GuideError(
                "An ensemble samples from its trained members, but has none yet: Pyro's SVI cannot train it. Use "
                "wiu_pyro.fit(model, guide, data), which trains one after the other."
            )
        refuse_svi(self)
        weights = torch.ones(len(self.members), device=next(iter(self.members[0].parameters()), torch.empty(0)).device)
        which = pyro.sample("_member", dist.Categorical(weights), infer={"is_auxiliary": True})
        if which.dim() == 0:
            with poutine.block():  # sites of their own names, so that every draw has the same ones
                values = self.members[int(which)](*args, **kwargs)
        else:
            values = self._of_each(which, *args, **kwargs)
        return {
            name: pyro.sample(name, dist.Delta(value, event_dim=self.event_dims.get(name, value.dim())))
            for name, value in values.items()
        }

    def _of_each(self, which: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Return for each element of `which` the draw of that member."""
        drawn = []
        for number, member in enumerate(self.members):
            with scope(prefix=f"_member{number}"):
                drawn.append(member(*args, **kwargs))
        values = {}
        for name, first in drawn[0].items():
            event_dim = self.event_dims.get(name, first.dim())
            index = which.reshape(which.shape + (1,) * event_dim)
            chosen = first
            for number, one in enumerate(drawn[1:], start=1):
                chosen = torch.where(index == number, one[name], chosen)
            values[name] = chosen
        return values


def ensemble_class(member: type, name: str) -> type[AutoEnsemble]:
    """Return the class of ensembles of one kind of member.

    Parameters
    ----------
    member : type
        A guide class, the toolkit's or Pyro's own; Pyro's start at the network's weights.
    name : str
        The member's short name.

    Returns
    -------
    type
        Takes the options of `AutoEnsemble`.
    """

    def make(model: Callable[..., Any]) -> AutoGuide:
        if issubclass(member, NetworkGuide):
            return member(model)
        return member(model, init_loc_fn=init_to_network(model))

    held = {"cli_name": f"{PREFIX}-{name}", "member_class": staticmethod(make), "__module__": __name__}
    return type("AutoEnsemble", (AutoEnsemble,), held)
