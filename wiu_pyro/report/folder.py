"""The folder a run leaves behind: where its parts lie, and how they are read.

::

    DIR/run.json               what was asked for, what came of it
    DIR/posteriors/<guide>.nc  one file per posterior, by the data contract
    DIR/interventions/<kind>/<guide>.nc  what came of changing a posterior: pruning, stochastic-layers
    DIR/report.html            the page
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from wiu_pyro.errors import OutputError, SchemaError

__all__ = ["PRUNING", "STOCHASTIC_LAYERS", "RunFolder", "written_aside"]

PRUNING, STOCHASTIC_LAYERS = "pruning", "stochastic-layers"  # kinds of interventions
MADE_BY = {PRUNING: "wiu run --prune", STOCHASTIC_LAYERS: "wiu stochastic-layers"}

# The mark of a file that is not whole yet; one left over from a killed run is never read and goes with the next run.
PARTIAL = ".partial-"
CHECKPOINT = ".under-way-"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    Parameters
    ----------
    path : Path
        The folder itself; need not exist.
    """

    path: Path

    @property
    def record(self) -> Path:
        """`run.json`: settings, versions, timings, convergence."""
        return self.path / "run.json"

    @property
    def posteriors(self) -> Path:
        """The folder of the exported posteriors."""
        return self.path / "posteriors"

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def point_estimate(self) -> Path:
        """The weights all posteriors of the run start from."""
        return self.path / "point_estimate.pt"

    def member(self, number: int) -> Path:
        """Return where the point estimate of one member of the run's ensembles lies."""
        return self.path / "members" / f"{number}.pt"

    def checkpoint(self, guide: str) -> Path:
        """Return where the fit of one posterior, or of the point estimate, is kept while it is under way."""
        return self.posteriors / f"{CHECKPOINT}{guide}"

    def posterior(self, guide: str) -> Path:
        """Return where the posterior of one guide lies, by the guide's command-line name."""
        return self.posteriors / f"{guide}.nc"

    def intervention(self, kind: str, guide: str) -> Path:
        """Return where the table of one kind of intervention on one guide's posterior lies."""
        return self.path / "interventions" / kind / f"{guide}.nc"

    def read_interventions(self, kind: str, guides: Sequence[str]) -> dict[str, xr.Dataset]:
        """Return the tables of one kind of intervention, by guide.

        Parameters
        ----------
        kind : {"pruning", "stochastic-layers"}
        guides : sequence of str
            Those to look for; those without a table are left out.

        Returns
        -------
        dict of str to Dataset

        Raises
        ------
        SchemaError
            If a file is there and cannot be read.
        """
        found = {}
        for guide in guides:
            path = self.intervention(kind, guide)
            if not path.is_file():
                continue
            try:
                found[guide] = xr.load_dataset(path, engine="h5netcdf")
            except (OSError, ValueError) as error:
                raise SchemaError(
                    f"A table of {MADE_BY[kind]} is needed, but {path} cannot be read: {error}. Delete it, or run that "
                    "command again."
                ) from error
        return found

    def read_record(self) -> dict[str, Any]:
        """Return the content of `run.json`.

        Returns
        -------
        dict

        Raises
        ------
        OutputError
            If there is no run in the folder, or its record cannot be read.
        """
        if not self.record.is_file():
            raise OutputError(
                f"A folder that holds a run (with a run.json) is needed, but {self._what_is_there()}. "
                f"Make one with: wiu run --out {self.path}"
            )
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self.record} must be the JSON a run wrote, but cannot be read: {error}. Run again with --overwrite."
            ) from error
        if not isinstance(record, dict) or "settings" not in record:
            raise OutputError(
                f"{self.record} must hold the settings of a run, but has none: it was not written by wiu run. "
                "Choose another folder, or run with --overwrite."
            )
        return record

    def _what_is_there(self) -> str:
        if not self.path.exists():
            return f"{self.path} does not exist"
        if not self.path.is_dir():
            return f"{self.path} is a file"
        return f"{self.path} has none"


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to, and move it into place once all is written.

    Nothing stands at `target` before it is whole; after an error nothing is left beside it either.

    Parameters
    ----------
    target : Path
        Where the file shall be; its folder is made where missing.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    OutputError
        If the folder cannot be made or written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"{target} must be a place that can be written to, but it is not: {error.strerror or error}. "
            "Choose another with --out."
        ) from error
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
