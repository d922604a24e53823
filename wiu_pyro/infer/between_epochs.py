"""What changes the prior between the epochs of a training: the evidence of a Laplace guide, or empirical Bayes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wiu_pyro.errors import GuideError
from wiu_pyro.guides.prior_scales import PriorTuning, read_tuning
from wiu_pyro.infer.empirical_bayes import EmpiricalBayes
from wiu_pyro.infer.online_tuning import OnlineTuning
from wiu_pyro.nn import Batches

if TYPE_CHECKING:
    from wiu_pyro.infer.run import Run

__all__ = ["between_epochs"]


def between_epochs(run: Run, batches: Batches, epochs: int) -> OnlineTuning | EmpiricalBayes | None:
    """Return what changes the prior between epochs, where that was asked for.

    Parameters
    ----------
    run : Run
        Whose guide is set up.
    batches : Batches
        The training data.
    epochs : int

    Returns
    -------
    OnlineTuning, EmpiricalBayes or None

    Raises
    ------
    GuideError
        If there are no epochs after the burn-in.
    """
    config = run.config
    asked = read_tuning(config.tune_prior, config.tune_per, config.tune_when)
    by_closed_form = asked is not None and asked.by == "empirical-bayes"
    tuning: PriorTuning | None = asked if by_closed_form else getattr(run.guide, "tuning", None)
    if tuning is None or tuning.when != "online":
        return None
    if epochs <= tuning.burn_in:
        instead = "a PriorTuning with a shorter one" if by_closed_form else 'tune_when="after"'
        raise GuideError(
            f"A prior tuned online needs more epochs than its burn-in of {tuning.burn_in}, but epochs is {epochs}. "
            f"Train longer, or use {instead}."
        )
    if by_closed_form:
        return EmpiricalBayes(run.guide, tuning, run.structure)
    return OnlineTuning(run.guide, batches)
