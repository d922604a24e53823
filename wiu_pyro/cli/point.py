"""The point estimate that all posteriors of a run share: trained once, kept in the run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wiu_pyro.cli.tracking import from_plain, plain
from wiu_pyro.errors import OutputError
from wiu_pyro.report.folder import written_aside

__all__ = ["PointEstimate", "is_laplace", "is_own", "point_guide"]


def is_laplace(guide_class: type) -> bool:
    """Return whether a guide is a Gaussian around a point estimate: one of the toolkit's, or Pyro's own."""
    return hasattr(guide_class, "laplace_approximation")


def is_own(guide_class: type) -> bool:
    """Return whether a guide is one of the toolkit's, which start where they are told."""
    from wiu_pyro.guides.network_guide import NetworkGuide

    return issubclass(guide_class, NetworkGuide)


def point_guide(guides: Mapping[str, type], model: Any) -> tuple[str, Any]:
    """Return the guide that is trained to find the most probable weights.

    That is the first Laplace guide asked for: its training is the point estimate, its curvature comes on top. Where
    none is asked for it is Pyro's `AutoDelta`.

    Parameters
    ----------
    guides : mapping of str to type
        Guide classes asked for, by name.
    model : callable

    Returns
    -------
    name : str
        Of the Laplace guide; empty where there is none.
    guide : AutoGuide
    """
    from pyro.infer.autoguide import AutoDelta

    from wiu_pyro.guides import init_to_network

    for name, guide_class in guides.items():
        if is_laplace(guide_class) and is_own(guide_class):
            return name, guide_class(model)
    return "", AutoDelta(model, init_loc_fn=init_to_network(model))


@dataclasses.dataclass(frozen=True)
class PointEstimate:
    """The most probable weights and how their training went.

    Parameters
    ----------
    weights : dict of str to Tensor
        Value of each site.
    losses : Tensor, (num_epochs,)
        −log joint, summed over the data, in nats.
    convergence : dict
        Fields of `wiu_pyro.infer.Convergence`.
    unsampled : dict of str to Tensor
        What the network held beside: parameters without a prior, running statistics.
    track : dict
        The layers' figures through the training, as plain values; empty where none were kept.
    """

    weights: dict[str, Any]
    losses: Any
    convergence: dict[str, Any]
    unsampled: dict[str, Any] = dataclasses.field(default_factory=dict)
    track: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, fit: Any) -> PointEstimate:
        """Return the point estimate of a finished fit."""
        import torch

        weights, beside = (
            {name: value.detach().cpu().clone() for name, value in part.items()}
            for part in (fit.point_estimate, fit.unsampled)
        )
        track = {} if fit.track is None else plain(fit.track)
        return cls(weights, torch.as_tensor(fit.losses), dataclasses.asdict(fit.convergence), beside, track)

    @classmethod
    def load(cls, path: Path) -> PointEstimate:
        """Return the point estimate that an earlier run saved.

        Parameters
        ----------
        path : Path

        Returns
        -------
        PointEstimate

        Raises
        ------
        OutputError
            If the file cannot be read.
        """
        import torch

        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise OutputError(
                f"--resume needs the point estimate of the earlier run, but {path} cannot be read "
                f"({type(error).__name__}). Run again with --overwrite."
            ) from error

    def save(self, path: Path) -> None:
        """Write the point estimate in one move."""
        import torch

        with written_aside(path) as aside:
            torch.save(vars(self), aside)

    def as_initial_values(self) -> Any:
        """Return the weights in the form Pyro's own guides take."""
        from pyro.infer.autoguide import init_to_value

        # copies: Pyro's guides make parameters of the very tensors they are given, and train them in place
        return init_to_value(values={name: value.clone() for name, value in self.weights.items()})

    def described(self) -> dict[str, Any]:
        """Return what `run.json` says of it."""
        return {"convergence": self.convergence, "losses": self.losses.tolist()}

    def lend_training_to(self, fit: Any) -> Any:
        """Return a Laplace fit with losses, convergence and track of the point estimate it is built around."""
        if fit.convergence.converged is not None:
            return fit
        convergence = type(fit.convergence)(**self.convergence)
        track = from_plain(self.track) if self.track else None
        return dataclasses.replace(fit, losses=self.losses.numpy(), convergence=convergence, track=track)
