"""Two shares of the same images, for example the errors of two networks: their difference and how far it is known.

Only the images on which the two disagree say anything. Where these are few, mean ± standard error is far too sure (of
no disagreement at all it makes an interval of no width); the score interval is not.

References
----------
Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
eq. 8 to 11.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

from wiu_pyro.errors import DataError

__all__ = ["paired_score", "paired_share_interval"]

INSIDE = 1 - 1e-9


def paired_score(first: int, second: int, num: int, *, difference: float) -> float:
    r"""Return Tango's score statistic of the hypothesis that two paired shares differ by `difference`.

    Parameters
    ----------
    first, second : int
        Pairs in which only the first, and only the second, is true.
    num : int
        All pairs.
    difference : float
        First share minus second under the hypothesis, strictly between -1 and 1.

    Returns
    -------
    float
        About standard Normal under the hypothesis; negative where the data lie below it.

    Raises
    ------
    DataError
        If the counts are no counts of pairs, or the difference is not between -1 and 1.

    References
    ----------
    .. [1] Tango (1998), Statistics in Medicine 17, eq. 9.

    Examples
    --------
    >>> round(paired_score(14, 6, 100, difference=0.0), 4)  # then McNemar's
    1.7889
    """
    _check(first, second, num)
    if not -1 < difference < 1:
        raise DataError(f"A difference between -1 and 1 is needed, got {difference}. Pass a share, not percent.")
    if difference < 0:
        return -paired_score(second, first, num, difference=-difference)
    # the probability of `second` alone under the hypothesis, by maximum likelihood: root of a q² + b q + c
    a, b = 2 * num, -first - second + (2 * num - first + second) * difference
    c = -second * difference * (1 - difference)
    other = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    variance = num * (2 * other + difference * (1 - difference))
    excess = first - second - num * difference
    if variance <= 0:  # nobody disagrees and no difference is asked for
        return 0.0
    return float(excess / np.sqrt(variance))


def paired_share_interval(first: int, second: int, num: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of the difference of two paired shares, first minus second.

    Parameters
    ----------
    first, second : int
        Pairs in which only the first, and only the second, is true.
    num : int
        All pairs.
    level : float
        Two-sided, between 0 and 1.

    Returns
    -------
    low, high : float

    Raises
    ------
    DataError
        If the counts are no counts of pairs, or `level` is outside 0 to 1.

    References
    ----------
    .. [1] Tango (1998), Statistics in Medicine 17, eq. 11.

    Examples
    --------
    >>> [round(end, 4) for end in paired_share_interval(0, 0, 1000)]  # no disagreement is not no difference
    [-0.0038, 0.0038]
    """
    _check(first, second, num)
    if not 0 < level < 1:
        raise DataError(f"A level between 0 and 1 is needed, got {level}. Use 0.95.")
    reach = float(stats.norm.isf((1 - level) / 2))

    def upper(one: int, other: int) -> float:
        def gap(difference: float) -> float:
            return paired_score(one, other, num, difference=difference) + reach

        start = (one - other) / num * INSIDE
        return 1.0 if gap(INSIDE) > 0 else float(optimize.brentq(gap, start, INSIDE))

    return -upper(second, first), upper(first, second)


def _check(first: int, second: int, num: int) -> None:
    if first < 0 or second < 0 or num < max(1, first + second):
        raise DataError(
            f"Counts of pairs are needed, got {first} and {second} that disagree of {num}. Count images once."
        )
