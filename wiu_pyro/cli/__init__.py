"""The `wiu` command: fit posteriors, read them, compare them, draw them, write the page.

Nothing here imports torch before a command needs it, so that `wiu --help` and `wiu summary` start fast.
"""

from __future__ import annotations

from wiu_pyro.cli.main import main

__all__ = ["main"]
