"""Whether a fit has converged, judged from its losses alone.

A schedule that lets the learning rate fall to zero flattens any loss curve, converged or not. So two stretches are
looked at: the last tenth of the epochs, and the last tenth of the epochs run at the full learning rate. A fit counts as
converged only if the loss changed by less than the threshold over both, with all of the KL's weight on. The change is
that of the mean over the tenth from the mean over the tenth before, for the loss of one epoch is noisy. It is relative
to the loss; a likelihood that is a density has no natural zero, so there it is relative to at least one nat per datum.

Epochs before the learning rate has risen and the KL has all its weight do not count: their loss is another, or falls by
design. Where less than half of the epochs have all of the KL's weight, that is said.

Few and small steps leave any loss nearly flat: a fit whose optimiser cannot have left the start has not converged
either. Adam moves a parameter by about the learning rate a step, whatever the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["THRESHOLD", "Convergence", "assess"]

THRESHOLD = 0.01


@dataclass(frozen=True)
class Convergence:
    """The verdict on a fit, with the figure it rests on.

    Attributes
    ----------
    converged : bool or None
        None where it was not assessed: fewer than 10 epochs, none at all, or a loss that is not finite.
    change : float
        The larger of the two relative changes of the loss; NaN where not assessed.
    threshold : float
    detail : str
        One sentence.
    """

    converged: bool | None
    change: float
    threshold: float
    detail: str


def assess(
    losses: Sequence[float],
    *,
    full_rate_epochs: int | None = None,
    warmup_epochs: int = 0,
    threshold: float = THRESHOLD,
    least: float = 0.0,
    reach: float = math.inf,
    travel: float = 0.0,
    objective: str = "-ELBO",
) -> Convergence:
    """Judge whether a fit has converged.

    Parameters
    ----------
    losses : sequence of float
        Per epoch, in nats, summed over the data.
    full_rate_epochs : int, optional
        How many of the first epochs ran before the learning rate began to fall; all of them when None.
    warmup_epochs : int
        How many of the first epochs ran before the learning rate was full, with all KL weight on.
    threshold : float
        Largest relative change that counts as none.
    least : float
        Smallest size of the loss that a change is taken relative to, in nats.
    reach, travel : float
        How far the optimiser's steps can have moved a parameter, and how far it must be able to move for the result not
        to be where it started.
    objective : str
        What the losses are, for the sentence.

    Returns
    -------
    Convergence

    Examples
    --------
    >>> assess([100.0] * 20).converged
    True
    >>> assess([2.0**-epoch for epoch in range(20)]).converged
    False
    """
    full = losses[warmup_epochs : full_rate_epochs or None]
    losses = losses[warmup_epochs:]
    epochs = len(losses)
    reason = _too_short(epochs, len(full), " after the warm-up" if warmup_epochs else "")
    if reason:
        return Convergence(None, math.nan, threshold, f"Convergence was not assessed: {reason}.")
    stretches = {"last": losses, "full-rate": full}
    changes = {name: _change(values, max(1, epochs // 10), least) for name, values in stretches.items()}
    worst = max(changes, key=lambda name: changes[name])
    where = "all epochs" if worst == "last" else "the epochs at the full learning rate"
    if reach < travel:
        return Convergence(
            False,
            changes[worst],
            threshold,
            f"too few steps: at this learning rate they move a parameter by about {reach:.2g} at most, and a log "
            f"scale needs {travel:.2g} from its start to where it belongs if the data say nothing.",
        )
    converged = changes[worst] < threshold
    detail = (
        f"{objective.replace('-', '−', 1)} changed by {_in_words(changes[worst])} over the last tenth of {where} "
        f"({'below' if converged else 'not below'} {100 * threshold:g} %)."
    )
    return Convergence(converged, changes[worst], threshold, detail)


def _too_short(epochs: int, full_rate: int, after: str) -> str:
    """Return why so few epochs say nothing of convergence; empty where they do."""
    if epochs < 10:
        return f"only {epochs} epochs{after}, at least 10 are needed" if epochs else f"no training{after}"
    if full_rate < 2:
        return f"only {full_rate} epochs at the full learning rate{after}, at least 2 are needed"
    return ""


def _in_words(change: float) -> str:
    return f"{100 * change:.2f} %" if change < 10 else "more than ten times its size"


def _change(losses: Sequence[float], window: int, least: float) -> float:
    """Return the relative change between the means of the last two windows; infinite where a loss is not finite."""
    window = min(window, len(losses) // 2)
    first = math.fsum(losses[-2 * window : -window]) / window
    last = math.fsum(losses[-window:]) / window
    if not (math.isfinite(first) and math.isfinite(last)):
        return math.inf
    return abs(last - first) / max(abs(last), least, 1e-12)
