"""What the command says besides its results: progress, warnings and errors, all on stderr."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from wiu_pyro.errors import WiuError

__all__ = ["guarded", "say", "warn"]

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def say(message: str) -> None:
    """Write one line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Write one warning on stderr."""
    say(f"Warning: {message}")


def guarded(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run the command line and turn whatever happens into an exit code and one clear message.

    Parameters
    ----------
    command : callable
        Takes the arguments; may end in `SystemExit`.
    arguments : sequence of str
        What the user typed after ``wiu``. With ``--debug`` among them, errors come with their traceback.

    Returns
    -------
    int
        0 where all went well, 2 for bad input, 1 for an unexpected error, 130 after Ctrl-C.
    """
    debug = "--debug" in arguments
    _let_idle_threads_sleep()
    with warnings.catch_warnings():
        _quieten_others(debug=debug)
        try:
            command(arguments)
        except SystemExit as stop:
            return _exit_code(stop)
        except KeyboardInterrupt:
            say("Interrupted.")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away (`| head`): nothing to say, and nobody to say it to
            return EXIT_OK
        except WiuError as error:
            return _report(error, f"Error: {error}", EXIT_BAD_INPUT, debug=debug)
        except Exception as error:  # noqa: BLE001 - the last net: no traceback without --debug
            hint = "" if debug else " Run the command again with --debug for the traceback."
            message = f"Unexpected error: {type(error).__name__}: {error}.{hint}"
            return _report(error, message, EXIT_UNEXPECTED, debug=debug)
    return EXIT_OK


def _let_idle_threads_sleep() -> None:
    """Ask OpenMP, before torch is imported, to let threads that wait give up their core.

    By default they spin. Where another program needs a core, a spinning thread keeps the one it waits for from running:
    a small network then took ten times as long and more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _exit_code(stop: SystemExit) -> int:
    if stop.code == EXIT_INTERRUPTED:
        say("Interrupted.")
    if stop.code is None:
        return EXIT_OK
    return stop.code if isinstance(stop.code, int) else EXIT_UNEXPECTED


def _report(error: Exception, message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    say(message)
    return code


def _quieten_others(*, debug: bool) -> None:
    """Show warnings as one line each, and those about other packages' own future only with --debug."""
    if debug:
        return
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.showwarning = _one_line


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> Any:
    warn(" ".join(str(message).split()))
