"""What was found of several networks and posteriors, as small tables that can stand beside a text.

::

    DIR/<network>/<posterior>/<table>.nc.gz    what one diagnostic or intervention said
    DIR/<network>/all/<table>.nc.gz            what speaks of all posteriors together
    DIR/<network>/runs.json                    seeds, settings, versions, convergence; why a table is missing

The files are netCDF 3, compressed: most tables take a few kilobytes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics
from wiu_pyro.errors import DataError, SchemaError, WiuError, near_matches
from wiu_pyro.report.folder import written_aside

__all__ = [
    "ALL",
    "TABLES",
    "Answers",
    "answer_tables",
    "note_missing",
    "read_answers",
    "remove_answer",
    "write_answer",
    "write_record",
]

SUFFIX = ".nc.gz"
RECORD = "runs.json"
ALL = "all"  # in the place of a posterior
LEAST_REPLICATES = 50  # within one network; with five seeds the intervals are over these
TABLES: dict[str, Callable[[Any], xr.Dataset]] = {
    "layer_uncertainty": diagnostics.layer_uncertainty,
    "between_layers": diagnostics.between_layers,
    "within_layer": diagnostics.within_layer,
    "evolution": diagnostics.evolution,
    "convergence": diagnostics.convergence,
    "magnitude": partial(diagnostics.magnitude, num_bootstrap=LEAST_REPLICATES),
    "magnitude_conditional": partial(diagnostics.magnitude, sd="conditional", num_bootstrap=LEAST_REPLICATES),
    "identification": diagnostics.identification,
    "identification_conditional": partial(diagnostics.identification, sd="conditional"),
    "predictive": diagnostics.predictive,
    "weight_distribution": partial(diagnostics.weight_distribution, metric="sd_to_prior"),
    "input_map": diagnostics.input_map,
}


def answer_tables(idata: Any) -> Iterator[tuple[str, xr.Dataset | str]]:
    """Give every table of a posterior, one after the other.

    Parameters
    ----------
    idata : InferenceData or DataTree
        Several seeds along `chain`.

    Yields
    ------
    name : str
    table : Dataset or str
        Text says why this posterior has none.
    """
    for name, diagnostic in TABLES.items():
        try:
            yield name, diagnostic(idata)
        except WiuError as error:
            yield name, str(error)


def write_answer(folder: Path, table: xr.Dataset, *, posterior: str, name: str) -> Path:
    """Write one table of a network.

    Parameters
    ----------
    folder : Path
        Of the network.
    table : Dataset
        Its numbers are kept in single precision.
    posterior : str
        `ALL` for a table of several.
    name : str

    Returns
    -------
    Path
    """
    target = folder / posterior / f"{name}{SUFFIX}"
    with written_aside(target) as aside:
        aside.write_bytes(gzip.compress(bytes(_plain(table).to_netcdf(engine="scipy")), mtime=0))
    return target


def remove_answer(folder: Path, *, posterior: str, name: str) -> None:
    """Remove one table of a network, where there is one; arguments as those of `write_answer`."""
    (folder / posterior / f"{name}{SUFFIX}").unlink(missing_ok=True)


def _plain(table: xr.Dataset) -> xr.Dataset:
    """Return the table with what netCDF 3 knows: no double precision, no coordinate that is text of no dim."""
    out = table.copy()
    for name, array in out.data_vars.items():
        if array.dtype == np.float64:
            out[name] = array.astype(np.float32)
        elif array.dtype == np.int64 or array.dtype == bool:
            out[name] = array.astype(np.int32)
        out[name].encoding = {}
    out.attrs = {name: int(value) if isinstance(value, bool | np.bool_) else value for name, value in out.attrs.items()}
    return out


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what a network's tables rest on, and which are missing and why.

    Parameters
    ----------
    folder : Path
        Of the network.
    record : mapping
        Plain values.
    """
    with written_aside(folder / RECORD) as aside:
        aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def note_missing(folder: Path, *, posterior: str, name: str, reason: str | None) -> None:
    """Let a network's record say why a table is missing.

    Parameters
    ----------
    folder : Path
        Of the network.
    posterior, name : str
    reason : str or None
        None takes an earlier reason out.
    """
    record = _read(folder / RECORD)
    missing = record.setdefault("missing", {}).setdefault(posterior, {})
    missing.pop(name, None)
    if reason is not None:
        missing[name] = reason
    if not missing:
        del record["missing"][posterior]
    write_record(folder, record)


@dataclass(frozen=True)
class Answers:
    """The saved tables of several networks.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @property
    def networks(self) -> list[str]:
        """The networks there are tables of, those of few layers first."""
        held = sorted(self.folder.glob(f"*/{RECORD}"))
        return [path.parent.name for path in sorted(held, key=lambda path: len(_read(path).get("layers", ())))]

    def record(self, network: str) -> dict[str, Any]:
        """Return what a network's tables rest on: seeds, settings, versions, convergence, missing tables."""
        if network not in self.networks:
            raise DataError(f"There are no tables of '{network}'. {near_matches(network, self.networks)}")
        return _read(self.folder / network / RECORD)

    def posteriors(self, network: str) -> list[str]:
        """Return the network's posteriors, in the order they are shown."""
        return list(self.record(network)["posteriors"])

    def table(self, network: str, name: str, posterior: str = ALL) -> xr.Dataset:
        """Return one table.

        Parameters
        ----------
        network, name : str
        posterior : str
            Left out for a table of all posteriors together.

        Returns
        -------
        Dataset

        Raises
        ------
        DataError
            If there is none, with the reason where it is known.
        SchemaError
            If the file cannot be read.
        """
        path = self.folder / network / posterior / f"{name}{SUFFIX}"
        if not path.is_file():
            reason = self.record(network).get("missing", {}).get(posterior, {}).get(name)
            known = sorted(other.name.removesuffix(SUFFIX) for other in path.parent.glob(f"*{SUFFIX}"))
            raise DataError(f"{network}, {posterior} has no table '{name}'. {reason or near_matches(name, known)}")
        try:
            return xr.load_dataset(path, engine="scipy")
        except (OSError, ValueError, EOFError) as error:
            raise SchemaError(
                f"A table that wiu answers wrote is needed, but {path} cannot be read: {error}. Make it again."
            ) from error

    def tables(self, network: str, name: str) -> dict[str, xr.Dataset]:
        """Return the tables of one name, by posterior; those that have none are left out."""
        folder = self.folder / network
        held = [
            posterior for posterior in self.posteriors(network) if (folder / posterior / f"{name}{SUFFIX}").is_file()
        ]
        return {posterior: self.table(network, name, posterior) for posterior in held}

    def missing(self, network: str, name: str) -> dict[str, str]:
        """Return why posteriors have no table of that name."""
        reasons = self.record(network).get("missing", {})
        return {posterior: said[name] for posterior, said in reasons.items() if name in said}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def read_answers(folder: str | Path) -> Answers:
    """Return the tables that `wiu answers` wrote.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    Answers

    Raises
    ------
    DataError
        If the folder holds none.
    """
    found = Answers(Path(folder))
    if not found.networks:
        raise DataError(
            f"A folder that wiu answers wrote is needed, but {folder} holds none. Make one: wiu answers DIR."
        )
    return found
