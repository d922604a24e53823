"""One page for a whole run: diagnostics and plots over its posteriors, in one file that works offline.

Nothing here needs torch or the network: a record and saved posteriors are enough.
"""

from wiu_pyro.report.answer import Answer, answer
from wiu_pyro.report.folder import RunFolder
from wiu_pyro.report.page import render, write_report
from wiu_pyro.report.posterior import Posterior

__all__ = ["Answer", "Posterior", "RunFolder", "answer", "render", "write_report"]
