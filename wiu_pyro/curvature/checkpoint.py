"""A checkpoint of a pass over the data, or a training: its state and what it belongs to, so that a killed one goes on.

Written aside and moved into place, so that there is a whole one at any time. Each process of several writes its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from wiu_pyro.curvature.processes import Processes
from wiu_pyro.errors import CurvatureError, OutputError, WiuError

__all__ = ["Checkpoint", "fingerprint"]

FORMAT = 1


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """Return a digest of tensors' dtypes, shapes and values, the same on any device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Checkpoint:
    """The file of a pass or a training under way.

    Parameters
    ----------
    path : str or Path
        Process r > 0 of several adds ``.r``.
    belongs_to : dict of str to plain value
        What a pass must have in common to go on with the file: its parts are named where they differ.
    seconds : float
        Least time between two writings; 0 writes each time.
    processes : Processes
    what : str
        What is under way, for messages.
    error : type
        Of WiuError: raised where the file is refused.
    """

    def __init__(
        self,
        path: str | Path,
        belongs_to: dict[str, Any],
        *,
        seconds: float = 60.0,
        processes: Processes = Processes(),  # noqa: B008 (frozen)
        what: str = "a curvature pass",
        error: type[WiuError] = CurvatureError,
    ) -> None:
        path = Path(path)
        self.path = path if processes.rank == 0 else path.with_name(f"{path.name}.{processes.rank}")
        self.belongs_to = {**belongs_to, "processes": processes.count}
        self.seconds, self.what, self.error = seconds, what, error
        self._written = time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state in the file, or None where there is no file.

        Parameters
        ----------
        device : device
            Where its tensors are put.

        Returns
        -------
        dict or None

        Raises
        ------
        WiuError
            Of the kind `error`: if the file is none of these, or belongs to another pass; says what differs.
        """
        if not self.path.exists():
            return None
        remedy = f"Remove it, or give checkpoint= another path: {self.path}"
        try:
            found = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds on a file that is none of its own
            raise self.error(f"A checkpoint of {self.what} is needed, but the file cannot be read. {remedy}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise self.error(
                f"A checkpoint of {self.what}, format {FORMAT}, is needed, but the file is another. {remedy}"
            )
        theirs = found["belongs_to"]
        differing = [name for name in self.belongs_to if theirs.get(name) != self.belongs_to[name]]
        if differing:
            raise self.error(
                "A checkpoint must belong to the same weights, settings and data, but this one's "
                f"{', '.join(differing)} differ{'s' * (len(differing) == 1)}. {remedy}"
            )
        return found["state"]

    def is_due(self) -> bool:
        """Return whether it is time to write."""
        return time.monotonic() - self._written >= self.seconds

    def write(self, state: dict[str, Any]) -> None:
        """Write a state of tensors and plain values: aside first, then moved into place.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        aside = self.path.with_name(f"{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save({"format": FORMAT, "belongs_to": self.belongs_to, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise OutputError(
                f"The checkpoint cannot be written to {self.path}: {error}. Give checkpoint= a path with room for it."
            ) from error
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file; the pass is done."""
        self.path.unlink(missing_ok=True)
