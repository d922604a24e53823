"""One page for a whole run: diagnostics and plots over its posteriors, in one file that works offline.

Nothing here needs torch or the network: a record and saved posteriors are enough. What was found of several networks is
kept as small tables (`read_answers`), which speak for themselves (`findings`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiu_pyro.report.answers import Answers, read_answers
    from wiu_pyro.report.answers_findings import Finding, findings, findings_rst
    from wiu_pyro.report.folder import RunFolder
    from wiu_pyro.report.page import render, write_report
    from wiu_pyro.report.posterior import Posterior
    from wiu_pyro.report.run_answer import Answer, answer
    from wiu_pyro.report.where import where_rst

__all__ = [
    "Answer",
    "Answers",
    "Finding",
    "Posterior",
    "RunFolder",
    "answer",
    "findings",
    "findings_rst",
    "read_answers",
    "render",
    "where_rst",
    "write_report",
]
MODULES = {
    "Answer": "run_answer",
    "Answers": "answers",
    "Finding": "answers_findings",
    "Posterior": "posterior",
    "RunFolder": "folder",
    "answer": "run_answer",
    "findings": "answers_findings",
    "findings_rst": "answers_findings",
    "read_answers": "answers",
    "render": "page",
    "where_rst": "where",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a command that only needs a run's folder draws nothing."""
    if name not in MODULES:
        raise AttributeError(f"module 'wiu_pyro.report' has no attribute '{name}'. Known: {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"wiu_pyro.report.{MODULES[name]}"), name)
