"""What saved answers say to each of the six questions, in the statements' own words, for a text to include."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.diagnostics.within_statement import MOST_LAYERS
from wiu_pyro.errors import DataError, near_matches
from wiu_pyro.report.answers import Answers
from wiu_pyro.report.captions import opening
from wiu_pyro.report.like_with_like import said_between, said_within, within_quantity

__all__ = ["QUESTIONS", "Finding", "findings", "findings_rst"]

UNSETTLED = "The fit had not converged"  # said with the posterior's name instead
SILENT = ("No two layers have", "No layer has weights", "Layer '")  # openings of statements without a finding
QUESTIONS = {
    "between_layers": "Do the layers differ in their uncertainty?",
    "within_layer": "Do the weights within a layer differ, and along what?",
    "during_training": "How does it move during the training, and when has a layer converged?",
    "weight_size": "What has the size of a weight to do with its uncertainty?",
    "pruning": "Which weights stay unidentified, and how many can be pruned?",
    "last_layer": "Is it enough to be Bayesian in the last layer?",
}


@dataclass(frozen=True)
class _Source:
    """One table of an answer: its name, its statement, how many sentences open it, all if None; more by layer."""

    table: str
    say: Callable[[xr.Dataset], str]
    sentences: int | None = 1
    by_layer: bool = False


SOURCES = {
    "between_layers": (_Source("between_layers", said_between, 2),),
    "within_layer": (_Source("within_layer", said_within, by_layer=True),),
    "during_training": (_Source("convergence", diagnostics.convergence_statement, 2),),
    "weight_size": (_Source("magnitude_conditional", diagnostics.magnitude_statement),),
    "pruning": (
        _Source("identification_conditional", diagnostics.identification_statement, 2),
        _Source("pruning", diagnostics.pruning_statement, 2),
    ),
    "last_layer": (_Source("stochastic_layers", diagnostics.last_layer_statement, None),),
}


@dataclass(frozen=True)
class Finding:
    """What some posteriors of one network say to one question.

    Attributes
    ----------
    network : str
    posteriors : tuple of str
        Those whose statements open with the same words; marked where a fit had not converged.
    text : str
    """

    network: str
    posteriors: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.network}, {', '.join(self.posteriors)}: {self.text}"


def findings(answers: Answers, question: str, network: str | None = None, *, brief: bool = False) -> list[Finding]:
    """Return what was found, network by network; posteriors that say the same are one finding.

    Parameters
    ----------
    answers : Answers
    question : str
        One of `QUESTIONS`.
    network : str, optional
        One network alone.
    brief : bool
        By those posteriors alone that have something to say, without a mark of convergence.

    Returns
    -------
    list of Finding

    Raises
    ------
    DataError
        If the question is unknown.
    """
    if question not in SOURCES:
        raise DataError(f"Unknown question '{question}'. {near_matches(question, list(SOURCES))}")
    found = []
    for name in answers.networks if network is None else [network]:
        if question == "between_layers":
            found += _agreed(answers, name)
        for source in SOURCES[question]:
            said: dict[str, list[str]] = {}
            for posterior, table in answers.tables(name, source.table).items():
                mark = " (not converged)" if table.attrs.get("converged") == "no" and not brief else ""
                said.setdefault(_opened(source, table), []).append(f"{posterior}{mark}")
            found += [Finding(name, tuple(who), text) for text, who in said.items()]
    return [one for one in found if not (brief and one.text.startswith(SILENT))]


def _opened(source: _Source, table: xr.Dataset) -> str:
    text = source.say(table).split(f" {UNSETTLED}")[0]
    if source.sentences is None:
        return text
    return opening(text, source.sentences + (_layers_split(table) if source.by_layer else 0))


def _layers_split(table: xr.Dataset) -> int:
    """Return how many sentences the statement has on single layers, with what their intervals rest on."""
    known = table["share"].sel(quantity=within_quantity(table)).notnull()
    layers = int(known.all([dim for dim in known.dims if dim != "layer"]).sum())
    return min(layers, MOST_LAYERS) + 1 if layers else 0


def _agreed(answers: Answers, network: str) -> list[Finding]:
    """Return what all posteriors together say of the pairs of layers; nothing where only one can speak."""
    try:
        text = diagnostics.agreed_pairs_statement(answers.tables(network, "between_layers"))
    except DataError:
        return []
    return [Finding(network, ("all posteriors",), text)]


def findings_rst(answers: Answers, *, brief: bool = False, pages: str = "/tutorials") -> str:
    """Return all findings as reStructuredText, question by question, each with a link to its page.

    Parameters
    ----------
    answers : Answers
    brief : bool
        As `findings` takes it.
    pages : str
        Folder of the pages, which are named as the questions are.

    Returns
    -------
    str
    """
    called = {name: str(answers.record(name).get("about") or name).rstrip(".") for name in answers.networks}
    lines = [
        line for name in answers.networks for line in (f"- *{escaped(called[name])}*: {_settled(answers, name)}", "")
    ]
    for key, question in QUESTIONS.items():
        lines += [f"**{question}** :doc:`The answer with figures <{pages}/{key}>`", ""]
        for network in answers.networks:
            own = findings(answers, key, network, brief=brief)
            lines += [f"*{escaped(called[network].split(':')[0])}*", ""] if own else []
            lines += [line for one in own for line in (f"- {_names(one.posteriors)}: {escaped(one.text)}", "")]
    return "\n".join(lines)


def _settled(answers: Answers, network: str) -> str:
    """Say how many seeds a network's findings rest on, and in how many of them each fit's loss had settled."""
    record = answers.record(network)
    counts = {name: sum(one["converged"] is True for one in found) for name, found in record["posteriors"].items()}
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(record["seeds"]) == 1:
        settled = [name for name, count in counts.items() if count]
        return f"one seed; the loss had settled: {', '.join(settled) or 'of none'}." if counts else ""
    return f"{len(record['seeds'])} seeds; the number of them in which the loss had settled: {said}." if counts else ""


def _names(posteriors: Sequence[str]) -> str:
    return ", ".join(posteriors)


def escaped(text: str) -> str:
    """Return running text with nothing that reStructuredText would read as markup."""
    return "".join(f"\\{letter}" if letter in "\\*`|_" else letter for letter in text)
