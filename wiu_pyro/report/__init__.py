"""One page for a whole run: diagnostics and plots over its posteriors, in one file that works offline.

Nothing here needs torch or the network: a record and saved posteriors are enough. What was found of several networks is
kept as small tables (`read_answers`), which speak for themselves (`findings`).
"""

from wiu_pyro.report.answer import Answer, answer
from wiu_pyro.report.answers import Answers, read_answers
from wiu_pyro.report.findings import Finding, findings, findings_rst
from wiu_pyro.report.folder import RunFolder
from wiu_pyro.report.page import render, write_report
from wiu_pyro.report.posterior import Posterior
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
