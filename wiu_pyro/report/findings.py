"""What saved answers say to each of the six questions, in the statements' own words, for a text to include."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.report.answers import Answers
from wiu_pyro.report.captions import opening

__all__ = ["FINDINGS", "Finding", "findings", "findings_rst"]


@dataclass(frozen=True)
class _Source:
    """One table of an answer: its name, its statement, and how many sentences of it are the opening."""

    table: str
    say: Callable[[xr.Dataset], str]
    sentences: int = 1


@dataclass(frozen=True)
class Finding:
    """What some posteriors of one network say to one question.

    Attributes
    ----------
    network : str
    posteriors : tuple of str
        Those whose statements open with the same words.
    text : str
    """

    network: str
    posteriors: tuple[str, ...]
    text: str


FINDINGS: dict[str, tuple[_Source, ...]] = {
    "Do the layers differ in their uncertainty?": (_Source("between_layers", diagnostics.between_statement, 2),),
    "Do the weights within a layer differ, and along what?": (_Source("within_layer", diagnostics.within_statement),),
    "How does it move during the training, and when has a layer converged?": (
        _Source("convergence", diagnostics.convergence_statement),
    ),
    "What has the size of a weight to do with its uncertainty?": (
        _Source("magnitude_conditional", diagnostics.magnitude_statement),
    ),
    "Which weights stay unidentified, and how many can be pruned?": (
        _Source("identification_conditional", diagnostics.identification_statement, 2),
        _Source("pruning", diagnostics.pruning_statement),
    ),
    "Is it enough to be Bayesian in the last layer?": (
        _Source("stochastic_layers", diagnostics.stochastic_layers_statement, 2),
    ),
}


def findings(answers: Answers, question: str) -> list[Finding]:
    """Return what was found, network by network; posteriors that say the same are one finding.

    Parameters
    ----------
    answers : Answers
    question : str
        One of `FINDINGS`.

    Returns
    -------
    list of Finding
    """
    found = []
    for network in answers.networks:
        for source in FINDINGS[question]:
            said: dict[str, list[str]] = {}
            for posterior, table in answers.tables(network, source.table).items():
                said.setdefault(opening(source.say(table), source.sentences), []).append(posterior)
            found += [Finding(network, tuple(who), text) for text, who in said.items()]
    return found


def findings_rst(answers: Answers, pages: Mapping[str, str] | None = None) -> str:
    """Return all findings as reStructuredText, question by question.

    Parameters
    ----------
    answers : Answers
    pages : mapping of str to str, optional
        Documents of the docs to link to, by question.

    Returns
    -------
    str
    """
    lines: list[str] = []
    for question in FINDINGS:
        page = (pages or {}).get(question)
        lines += [f".. rubric:: {question}", ""]
        for network in answers.networks:
            own = [one for one in findings(answers, question) if one.network == network]
            lines += [f"``{network}``", ""] if own else []
            lines += [line for one in own for line in (f"- {_names(one.posteriors)}: {_escaped(one.text)}", "")]
        lines += [f"More: :doc:`{page}`.", ""] if page else []
    return "\n".join(lines)


def _names(posteriors: Sequence[str]) -> str:
    return ", ".join(f"**{name}**" for name in posteriors)


def _escaped(text: str) -> str:
    """Return running text with nothing that reStructuredText would read as markup."""
    return "".join(f"\\{letter}" if letter in "\\*`|_" else letter for letter in text)
