"""Numbers as people and as programs read them: three significant digits in tables, plain Python values in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["MISSING", "bytes_in_words", "estimate", "number", "percent", "plain", "ratio", "seconds_in_words"]

MISSING = "–"


def number(value: Any, digits: int = 3) -> str:
    """Write one table cell: whole numbers in full, others with `digits` significant digits, nothing as a dash.

    Returns
    -------
    str

    Examples
    --------
    >>> [number(v) for v in (314000, 0.123456, 12345.6, 3.2e-7, float("nan"), float("inf"), "kfac")]
    ['314,000', '0.123', '12,346', '3.2e-07', '–', 'inf', 'kfac']
    """
    if isinstance(value, str):
        return value
    if value is None or _is_nan(value):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    size = abs(float(value))
    if math.isinf(size):
        return "inf" if value > 0 else "-inf"
    if size and (size < 1e-3 or size >= 1e9):
        return f"{float(value):.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    return f"{float(value):,.{decimals}f}"


def ratio(value: Any) -> str:
    """Write a ratio whose size below a thousandth means nothing, as of a weight without signal.

    Returns
    -------
    str

    Examples
    --------
    >>> [ratio(v) for v in (1.2e-41, 0.0, 0.113, float("nan"))]
    ['< 0.001', '< 0.001', '0.113', '–']
    """
    return "< 0.001" if value is not None and abs(value) < 1e-3 else number(value)


def percent(value: Any, decimals: int = 1) -> str:
    """Write a share of 1 in percent; nothing as a dash.

    Returns
    -------
    str

    Examples
    --------
    >>> percent(0.9764)
    '97.6 %'
    """
    return MISSING if value is None or _is_nan(value) else f"{100 * float(value):.{decimals}f} %"


def estimate(value: Any, standard_error: Any, decimals: int = 3) -> str:
    """Write a figure with its standard error.

    Returns
    -------
    str

    Examples
    --------
    >>> estimate(0.1234, 0.0101)
    '0.123 ± 0.010'
    """
    if value is None or _is_nan(value):
        return MISSING
    text = f"{float(value):.{decimals}f}"
    if standard_error is None or _is_nan(standard_error):
        return text
    return f"{text} ± {float(standard_error):.{decimals}f}"


def seconds_in_words(seconds: float | None) -> str:
    """Write a duration.

    Returns
    -------
    str

    Examples
    --------
    >>> [seconds_in_words(s) for s in (0.42, 12.3, 245.0, 7320.0)]
    ['0.4 s', '12 s', '4 min 5 s', '2 h 2 min']
    """
    if seconds is None:
        return MISSING
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def bytes_in_words(size: float | None) -> str:
    """Write an amount of memory.

    Returns
    -------
    str

    Examples
    --------
    >>> [bytes_in_words(s) for s in (512, 3_500_000, 2.5e9)]
    ['512 B', '3.5 MB', '2.5 GB']
    """
    if size is None:
        return MISSING
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{int(size)} B"


def plain(value: Any) -> Any:
    """Turn arrays, NumPy numbers and NaN into what JSON can hold: lists, numbers, and null for what is not finite.

    Returns
    -------
    str, int, float, None, list or dict

    Examples
    --------
    >>> plain({"kl": np.array([1.5, np.nan]), "converged": np.bool_(True)})
    {'kl': [1.5, None], 'converged': True}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)
