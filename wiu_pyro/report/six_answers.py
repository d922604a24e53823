"""What the page leads with: the network as a picture, and six questions with the findings, a figure and the numbers.

Nothing is found here: each sentence is the opening of a diagnostic's statement, the rest of which stands, with tables,
in the section the card leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from wiu_pyro import diagnostics, plots, schema
from wiu_pyro.errors import WiuError
from wiu_pyro.report.captions import ALTS, caption, opening
from wiu_pyro.report.content import Figure
from wiu_pyro.report.figures import embedded
from wiu_pyro.report.like_with_like import between_metric, said_between, said_within, within_quantity
from wiu_pyro.report.posterior import Posterior

__all__ = ["Card", "network_figure", "six_answers"]

Tables = Mapping[str, xr.Dataset]
MOST_PAIRS = 8
MOST_PANELS = 3
MISSING = "No posterior can answer."


@dataclass(frozen=True)
class Card:
    """One of the six questions, answered in short.

    Parameters
    ----------
    question : str
    findings : tuple of (str, str)
        Posteriors, and what was found by them.
    figure : Figure or None
    links : tuple of (str, str)
        Anchor of each section with the numbers, and its name.
    unanswered : tuple of (str, str)
        What is not known and why, and the command that would tell; empty where there is none.
    """

    question: str
    findings: tuple[tuple[str, str], ...] = ()
    figure: Figure | None = None
    links: tuple[tuple[str, str], ...] = ()
    unanswered: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Part:
    """One source of a question's answer: a diagnostic of that name, or the tables of an intervention.

    `draw` gets a table of it; `missing` says why no posterior has one (else the diagnostic does), `command` what to
    run.
    """

    name: str
    link: tuple[str, str]
    say: Callable[[xr.Dataset], str]
    draw: Callable[[xr.Dataset], Any]
    sentences: int = 1
    missing: str = ""
    command: str = ""
    alt: str = ""


@dataclass
class _Found:
    """What the parts of one question gave so far."""

    said: dict[str, list[str]] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)
    figure: Figure | None = None
    unanswered: list[tuple[str, str]] = field(default_factory=list)


def _between(table: xr.Dataset) -> Any:
    return plots.between_layers(table, between_metric(table), max_pairs=MOST_PAIRS)


def _within(table: xr.Dataset) -> Any:
    return plots.within_layer(table, within_quantity(table))


def _magnitude(table: xr.Dataset) -> Any:
    """Draw the first, the middle and the last layer."""
    count = table.sizes["layer"]
    shown = range(count) if count <= MOST_PANELS else (0, count // 2, count - 1)
    return plots.magnitude(table.isel(layer=list(shown)))


def _pruning(table: xr.Dataset) -> Any:
    """Draw the whole network; the layers pruned alone stand in the section."""
    return plots.pruning(table.drop_vars("layer_error", errors="ignore"))


def _stochastic(table: xr.Dataset) -> Any:
    known = table["metric"].values.tolist()
    return plots.stochastic_layers(table, "nll" if "nll" in known else str(known[0]))


BETWEEN = _Part("between_layers", ("between-layers", "all pairs"), said_between, _between)
WITHIN = _Part("within_layer", ("within-layer", "layer by layer"), said_within, _within)
TRAINING = _Part(
    "convergence",
    ("training", "epoch by epoch"),
    diagnostics.convergence_statement,
    plots.convergence,
    missing="No figures of the training were kept. Keep them with:",
    command="wiu run --track-every 1 --overwrite",
)
MAGNITUDE = _Part("magnitude", ("magnitude", "layer by layer"), diagnostics.magnitude_statement, _magnitude)
IDENTIFICATION = _Part(
    "identification",
    ("identification", "unidentified weights"),
    diagnostics.identification_statement,
    plots.identification,
    sentences=2,
)
PRUNING = _Part(
    "pruning",
    ("pruning", "pruning"),
    diagnostics.pruning_statement,
    _pruning,
    missing="How many can be pruned was not tried. Try it with:",
    command="wiu run --prune --overwrite",
    alt="Curves of the error against the share of weights removed, by criterion",
)
STOCHASTIC = _Part(
    "stochastic-layers",
    ("last-layer", "all sets of layers"),
    diagnostics.stochastic_layers_statement,
    _stochastic,
    missing="Not tried. Try it with:",
    command="wiu stochastic-layers DIR",
    alt="Sets of uncertain layers by rows, with the difference in score from the whole posterior, with intervals",
)
QUESTIONS = {
    "Do the layers differ in their uncertainty?": (BETWEEN,),
    "Do the weights within a layer differ, and along what?": (WITHIN,),
    "How did it move during the training, and when had a layer converged?": (TRAINING,),
    "What has the size of a weight to do with its uncertainty?": (MAGNITUDE,),
    "Which weights stay unidentified, and how many can be pruned?": (PRUNING, IDENTIFICATION),
    "Is it enough to be Bayesian in the last layer?": (STOCHASTIC,),
}


def six_answers(
    posteriors: Sequence[Posterior], *, pruned: Tables | None = None, stochastic: Tables | None = None
) -> list[Card]:
    """Return the six questions, each with what was found by every posterior that can answer it.

    Parameters
    ----------
    posteriors : sequence of Posterior
    pruned, stochastic : mapping of str to Dataset, optional
        The tables of the interventions, by posterior.

    Returns
    -------
    list of Card
        None without a posterior; else six, in their order.
    """
    if not posteriors:
        return []
    tables: dict[str, Tables] = {PRUNING.name: pruned or {}, STOCHASTIC.name: stochastic or {}}
    return [_card(question, parts, posteriors, tables) for question, parts in QUESTIONS.items()]


def network_figure(posteriors: Sequence[Posterior]) -> Figure | None:
    """Return the picture of the network, by the posterior the cards are drawn of; None without one.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    Figure or None
    """
    if not posteriors:
        return None
    shown = _in_order(posteriors)[0]
    about = schema.dataset(shown.idata, "layers")
    table = shown.table
    if "module_type" in about:
        table = table.assign_coords(module_type=about["module_type"].sel(layer=table["layer"]))
    seen = caption("network", shown)
    return embedded(plots.network(table), f"{shown.name}{shown.mark}", caption=seen, alt=ALTS["network"])


def _in_order(posteriors: Sequence[Posterior]) -> list[Posterior]:
    """Return the posteriors, those to draw first in front: converged, of most layers, with correlations."""
    return sorted(
        posteriors,
        key=lambda one: (one.converged == "no", -len(one.covered), "conditional_contraction" not in one.table),
    )


def _card(question: str, parts: Sequence[_Part], posteriors: Sequence[Posterior], tables: Mapping[str, Tables]) -> Card:
    found = _Found()
    for part in parts:
        _add(found, part, posteriors, tables)
    findings = tuple((", ".join(names), text) for text, names in found.said.items())
    return Card(question, findings, found.figure, tuple(found.links), tuple(found.unanswered))


def _add(found: _Found, part: _Part, posteriors: Sequence[Posterior], tables: Mapping[str, Tables]) -> None:
    """Add what one part says by each posterior, in their order; draw it for the best one that can answer."""
    answers: dict[str, xr.Dataset] = {}
    reasons = []
    for posterior in posteriors:
        try:
            answer = tables[part.name].get(posterior.name) if part.name in tables else posterior.asked(part.name)
        except WiuError as error:
            reasons.append(str(error))
            continue
        if answer is not None:
            answers[posterior.name] = answer
            said = opening(part.say(answer), part.sentences)
            found.said.setdefault(said, []).append(f"{posterior.name}{posterior.mark}")
    if not answers:
        found.unanswered.append((part.missing or next(iter(reasons), MISSING), part.command))
        return
    found.links.append(part.link)
    for posterior in _in_order(posteriors):
        if posterior.name in answers and found.figure is None:
            found.figure = _drawn(part, posterior, answers[posterior.name])


def _drawn(part: _Part, posterior: Posterior, answer: xr.Dataset) -> Figure | None:
    try:
        drawing = part.draw(answer)
    except WiuError:
        return None  # of one layer, say, there is nothing to draw
    alt = part.alt or ALTS[part.name.replace("_", "-")]
    return embedded(drawing, f"{posterior.name}{posterior.mark}", alt=alt)
