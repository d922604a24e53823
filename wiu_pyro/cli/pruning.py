"""`wiu run --prune`: how many weights of each posterior can go, written beside it while its fit is at hand."""

from __future__ import annotations

from typing import Any

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.plan import Plan
from wiu_pyro.errors import WiuError
from wiu_pyro.report.folder import PRUNING, written_aside

__all__ = ["write_pruning"]


def write_pruning(plan: Plan, name: str, fit: Any) -> None:
    """Prune a posterior in one shot by every criterion it allows, and write the table into the run's folder.

    Parameters
    ----------
    plan : Plan
    name : str
        The guide's command-line name.
    fit : Fit
    """
    from wiu_pyro.interventions import prune

    say(f"{name}: pruning ...")
    try:
        table = prune(fit, plan.test, train_data=plan.train, seed=plan.settings.seed)
    except WiuError as error:
        warn(f"{name} was not pruned: {error}")
        return
    with written_aside(plan.folder.intervention(PRUNING, name)) as aside:
        table.to_netcdf(aside, engine="h5netcdf")
