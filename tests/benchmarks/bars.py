"""What a timed case must reach."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bar"]


@dataclass(frozen=True)
class Bar:
    """What a case must reach.

    Attributes
    ----------
    case : str
    against : tuple of str
        Beginnings of the names of the cases of which the fastest is the measure.
    most : dict of str to float
        By network, the most it may take of that one's time.
    """

    case: str
    against: tuple[str, ...]
    most: dict[str, float]
