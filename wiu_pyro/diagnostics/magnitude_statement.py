"""What the size of a weight has to do with its uncertainty, in words: figures, intervals, and what they rest on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from wiu_pyro.diagnostics.wording import Figure, basis, closing, figures, listed, percent
from wiu_pyro.errors import SchemaError

__all__ = ["ALIKE", "magnitude_statement"]

ALIKE = 0.9  # weights kept in common, from which on two rankings are called one


def magnitude_statement(table: xr.Dataset) -> str:
    r"""Return how the sd depends on the size of a weight, and whether two rankings of the weights are one, in words.

    A layer's sd is said to fall or rise with the size where the interval of the rank correlation leaves out 0; within
    one network the correlation also has to be beyond what unrelated sds would give. Ranking by signal-to-noise and
    ranking by \|mean\| are called one where the weights they keep have at least 90 % in common at each share removed
    (50, 90, 95, 99 %), by the lower end of the interval; they part where the upper end is below 90 % at one of them.

    Parameters
    ----------
    table : Dataset
        What `magnitude` returned.

    Returns
    -------
    str

    Raises
    ------
    SchemaError
        If the table is another one.
    """
    if "spearman" not in table or "kept_in_common" not in table:
        raise SchemaError(
            f"A table with 'spearman' and 'kept_in_common' is needed, but this has {', '.join(map(str, table))}. "
            "Pass what wiu_pyro.diagnostics.magnitude returned."
        )
    found = figures(table, "spearman")
    if not found:
        return "No layer has weights with an uncertainty that could depend on their size."
    sentences = [*_dependence(table, found), *_rankings(table), basis(table), *closing(table)]
    if any(figure.has_interval for figure in found):
        return " ".join(sentences)
    return " ".join(sentence for sentence in sentences if sentence != basis(table))


def _dependence(table: xr.Dataset, found: list[Figure]) -> list[str]:
    limit, sd = _null(table), "conditional sd" if table.attrs["sd"] == "conditional" else "sd"
    known = [figure for figure in found if figure.has_interval]
    beyond = [figure for figure in known if abs(figure.value) > limit[figure.layer]]
    groups = {"smaller": [f for f in beyond if f.high < 0], "larger": [f for f in beyond if f.low > 0]}
    slopes = {figure.layer: figure for figure in figures(table, "slope")}
    sentences = []
    for word, layers in groups.items():
        if layers:
            ordered = sorted(layers, key=lambda figure: -abs(figure.value))
            texts = [f"{figure.text(_signed)} in '{figure.layer}'" for figure in ordered]
            sentences.append(
                f"Larger weights tend to have {word} {sd}s{_where(len(layers), len(known))}: Spearman's correlation "
                f"{listed(texts)}. {_effect([slopes[f.layer] for f in ordered])}"
            )
    none = [figure for figure in known if figure not in (*groups["smaller"], *groups["larger"])]
    if none:
        texts = [f"{figure.text(_signed)} in '{figure.layer}'" for figure in none]
        sentences.append(f"No dependence of the {sd} on the size is shown: Spearman's correlation {listed(texts)}.")
    rest = [figure for figure in found if not figure.has_interval]
    if rest:
        texts = [f"{_signed(f.value)} in '{f.layer}', chance ±{limit[f.layer]:.2f}" for f in rest]
        sentences.append(f"Without an interval (fewer than 20 outputs or inputs): {listed(texts)}.")
    return sentences


def _where(num: int, known: int) -> str:
    return f" in {'all' if num == known else f'{num} of the'} {known} layers with an interval" if known > 1 else ""


def _effect(slopes: list[Figure]) -> str:
    """Return how much the sd changes along the size, from the steepest of the slopes."""
    steepest = max(slopes, key=lambda figure: abs(figure.value))
    if not np.isfinite(steepest.value):
        return ""
    factors = Figure(steepest.layer, *(10.0**end for end in (steepest.value, steepest.low, steepest.high)))
    return f"Ten times the size goes with {factors.text('{:.3f}'.format)} times the sd in '{steepest.layer}'."


def _null(table: xr.Dataset) -> dict[str, float]:
    """Return what a correlation has to be beyond, by layer; the null of each network, and nothing over seeds."""
    limit = table["spearman_null"] * (0 if "seeds_spearman" in table else 1)
    limit = limit.max("chain") if "chain" in limit.dims else limit
    return dict(zip(table["layer"].values.tolist(), limit.values.astype(float).tolist(), strict=True))


def _rankings(table: xr.Dataset) -> list[str]:
    by_level = {float(level): figures(table.sel(level=level), "kept_in_common") for level in table["level"].values}
    layers: dict[str, list[tuple[float, Figure]]] = {}
    for level, found in by_level.items():
        for figure in found:
            layers.setdefault(figure.layer, []).append((level, figure))
    verdicts: dict[str, list[str]] = {}
    for layer, levels in layers.items():
        verdict, (level, least) = _verdict(levels)
        verdicts.setdefault(verdict, []).append(f"{least.text(percent)} at {percent(level)} removed in '{layer}'")
    openings = {
        "one": "Ranking by signal-to-noise and ranking by size are one: of the weights kept they have in common at "
        "least",
        "part": "Ranking by signal-to-noise and ranking by size part: of the weights kept they have in common only",
        "open": "Whether the two rankings are one is open: of the weights kept they have in common",
        "without": "Weights kept in common by ranking by signal-to-noise and by size, without an interval: at least",
    }
    return [f"{text} {listed(verdicts[name])}." for name, text in openings.items() if name in verdicts]


def _verdict(found: list[tuple[float, Figure]]) -> tuple[str, tuple[float, Figure]]:
    """Return whether two rankings are one, part or neither is known, and the share removed that says most."""
    known = [(level, figure) for level, figure in found if figure.has_interval]
    least = min(known or found, key=lambda pair: pair[1].value)
    if not known:
        return "without", least
    if any(figure.high < ALIKE for _, figure in known):
        return "part", least
    return "one" if all(figure.low >= ALIKE for _, figure in known) else "open", least


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}".replace("-", "−")  # -0 + 0 is 0
