"""`python -m wiu_pyro`: the same as the `wiu` command."""

from __future__ import annotations

import sys

from wiu_pyro.cli import main

if __name__ == "__main__":
    sys.exit(main())
