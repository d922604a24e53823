"""The point estimate that all posteriors of a run share: trained once, kept in the run's folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from wiu_pyro.errors import OutputError
from wiu_pyro.report.folder import written_aside

__all__ = ["PointEstimate", "point_guide"]


def point_guide(model: Any) -> Any:
    """Return the guide that finds the most probable weights: Pyro's own `AutoDelta`."""
    from pyro.infer.autoguide import AutoDelta

    return AutoDelta(model)


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
    """

    weights: dict[str, Any]
    losses: Any
    convergence: dict[str, Any]

    @classmethod
    def of(cls, fit: Any) -> PointEstimate:
        """Return the point estimate of a finished fit."""
        import torch

        weights = {name: value.detach().cpu().clone() for name, value in fit.point_estimate.items()}
        return cls(weights, torch.as_tensor(fit.losses), dataclasses.asdict(fit.convergence))

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

    def described(self) -> dict[str, Any]:
        """Return what `run.json` says of it."""
        return {"convergence": self.convergence, "losses": self.losses.tolist()}

    def lend_training_to(self, fit: Any) -> Any:
        """Return a Laplace fit with the losses and the convergence of the point estimate it is built around."""
        if fit.convergence.converged is not None:
            return fit
        convergence = type(fit.convergence)(**self.convergence)
        return dataclasses.replace(fit, losses=self.losses.numpy(), convergence=convergence)
