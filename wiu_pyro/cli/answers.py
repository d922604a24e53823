"""`wiu answers`: the runs of several seeds as one posterior each, asked every question, the answers as small tables.

Runs that differ by their seed alone belong together; their folders end in ``_seed<N>``, as `wiu sweep` names them. The
point estimates of all seeds are one more posterior, the deep ensemble.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from wiu_pyro.cli.console import say, warn
from wiu_pyro.cli.plan import Plan
from wiu_pyro.cli.plan import load as load_plan
from wiu_pyro.cli.point import PointEstimate
from wiu_pyro.cli.run_settings import settings_of
from wiu_pyro.errors import DataError, WiuError
from wiu_pyro.nn.scripts import load_model_script
from wiu_pyro.report.answers import ALL, answer_tables, read_answers, remove_answer, write_answer, write_record
from wiu_pyro.report.answers_findings import findings_rst
from wiu_pyro.report.folder import RunFolder, written_aside
from wiu_pyro.report.where import where_rst

__all__ = ["ENSEMBLE", "Seeds", "groups_of_seeds", "write_answers", "write_findings"]

ENSEMBLE = "ensemble"
NAMED = re.compile(r"(.+)_seed(\d+)")
OF_A_RUN = ("seed", "out", "resume", "overwrite", "guides", "prune", "report", "device", "data_root")


@dataclass(frozen=True)
class Seeds:
    """The runs of one network that differ by their seed alone.

    Attributes
    ----------
    name : str
        Of the network: the runs' folders without the seed.
    folders : tuple of RunFolder
        Complete runs alone, by seed.
    records : tuple of dict
        Their `run.json`.
    incomplete : tuple of str
        Names of the runs that are left out.
    """

    name: str
    folders: tuple[RunFolder, ...]
    records: tuple[dict[str, Any], ...]
    incomplete: tuple[str, ...] = ()

    @property
    def guides(self) -> list[str]:
        """The posteriors that every run has."""
        first, *others = (list(record["posteriors"]) for record in self.records)
        return [name for name in first if all(name in other for other in others)]

    def plan(self, place: int, guides: Sequence[str], data_root: Path | None) -> Plan:
        """Load model and data of one run."""
        return load_plan(settings_of(self.folders[place], ",".join(guides), data_root))


def groups_of_seeds(folder: Path) -> list[Seeds]:
    """Return the networks of a sweep's folder, each with its complete runs.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Seeds

    Raises
    ------
    DataError
        If there is no complete run.
    """
    found: dict[str, list[tuple[int, RunFolder, dict[str, Any]]]] = {}
    left: dict[str, list[str]] = {}
    for path in sorted((folder / "runs").glob("*_seed*/run.json")):
        match = NAMED.fullmatch(path.parent.name)
        if match is None:
            continue
        run = RunFolder(path.parent)
        record = run.read_record()
        if record.get("finished"):
            found.setdefault(match[1], []).append((int(match[2]), run, record))
        else:
            left.setdefault(match[1], []).append(path.parent.name)
    if not found:
        todo = f"Go on with: wiu sweep --out {folder}."
        if (folder / "run.json").is_file():
            todo = f"It is a single run: look at {folder}/report.html, or make many: wiu sweep --out sweeps/NAME."
        raise DataError(f"A sweep with complete runs is needed, but {folder} has none. {todo}")
    groups = []
    for name, runs in found.items():
        _, folders, records = zip(*sorted(runs, key=lambda one: one[0]), strict=True)
        groups.append(Seeds(name, tuple(folders), tuple(records), tuple(left.get(name, ()))))
    return groups


@dataclass
class _Written:
    """What was written of one network, and why the rest was not."""

    folder: Path
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    convergence: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)

    def add(self, posterior: str, name: str, table: xr.Dataset | str) -> None:
        if isinstance(table, str):
            self.missing.setdefault(posterior, {})[name] = table
            remove_answer(self.folder, posterior=posterior, name=name)  # an earlier one is of other runs
        else:
            write_answer(self.folder, table, posterior=posterior, name=name)


def write_answers(seeds: Seeds, out: Path, *, data_root: Path | None = None) -> Path:
    """Write the tables of one network: every diagnostic of each posterior, and what compares them.

    Parameters
    ----------
    seeds : Seeds
    out : Path
        The network's tables come into a folder of its name.
    data_root : Path, optional
        Where the data lie, which the ensemble's predictions need.

    Returns
    -------
    Path
        The network's folder.
    """
    from wiu_pyro import diagnostics, schema
    from wiu_pyro.export import concat, load

    written = _Written(out / seeds.name)
    posteriors = {}
    for name in seeds.guides:
        say(f"{seeds.name}, {name}: tables ...")
        idata = concat([load(folder.posterior(name)) for folder in seeds.folders])
        posteriors[name] = idata
        written.layers = schema.layer_names(idata)
        written.convergence[name] = [record["posteriors"][name]["convergence"] for record in seeds.records]
        for table, content in answer_tables(idata):
            written.add(name, table, content)
    if len(seeds.folders) > 1:
        posteriors[ENSEMBLE] = _ensemble(seeds, data_root)
        written.convergence[ENSEMBLE] = [record["point_estimate"]["convergence"] for record in seeds.records]
        for table, content in answer_tables(posteriors[ENSEMBLE]):
            written.add(ENSEMBLE, table, content)
    for table, ask in {"compare": diagnostics.compare, "agreement": diagnostics.agreement}.items():
        chosen = posteriors if table == "compare" else {k: v for k, v in posteriors.items() if k != ENSEMBLE}
        try:
            written.add(ALL, table, ask(chosen))
        except WiuError as error:
            written.add(ALL, table, str(error))
    write_record(written.folder, _record(seeds, written))
    if seeds.incomplete:
        warn(f"{seeds.name}: {', '.join(seeds.incomplete)} are not complete and were left out.")
    return written.folder


def _record(seeds: Seeds, written: _Written) -> dict[str, Any]:
    """Return what the tables rest on."""
    first = seeds.records[0]
    about = load_model_script(first["settings"]["model"]).about
    settings = {name: value for name, value in first["settings"].items() if name not in OF_A_RUN}
    return {
        "network": seeds.name,
        "about": about,
        "layers": written.layers,
        "model": first.get("model", {}),
        "data": {name: first["data"][name] for name in ("name", "num_train", "num_test", "image_shape", "scaling")},
        "seeds": [record["settings"]["seed"] for record in seeds.records],
        "settings": settings,
        "versions": first.get("versions", {}),
        "posteriors": written.convergence,
        "fit_seconds": {
            name: [record["posteriors"][name].get("fit_seconds") for record in seeds.records] for name in seeds.guides
        },
        "missing": written.missing,
    }


def _ensemble(seeds: Seeds, data_root: Path | None) -> Any:
    """Return the posterior file of the deep ensemble: the runs' point estimates, members along `chain`."""
    import wiu_pyro as wiu
    from wiu_pyro.infer import ensemble_of

    say(f"{seeds.name}, {ENSEMBLE}: point estimates of {len(seeds.folders)} seeds ...")
    fits = []
    for place, folder in enumerate(seeds.folders):
        plan = seeds.plan(place, seeds.guides[:1], data_root)
        point = PointEstimate.load(folder.point_estimate)
        fit = wiu.fit(
            plan.model,
            wiu.guides.AutoPointEstimate(plan.model),
            plan.train,
            epochs=0,
            start={**point.weights, **point.unsampled},
            seed=plan.settings.seed,
        )
        fits.append(point.lend_training_to(fit))
    return wiu.to_inference_data(
        ensemble_of(fits),
        data=plan.test,
        num_samples=len(fits),
        split="test",
        model_name=plan.script.title,
        data_name=plan.test.name,
    )


def write_findings(out: Path) -> list[Path]:
    """Write what all tables of a folder say, for the documentation.

    That is ``findings.rst``, the shorter ``brief.rst``, and ``where.rst``, the most uncertain layer alone.

    Parameters
    ----------
    out : Path

    Returns
    -------
    list of Path
    """
    answers = read_answers(out)
    texts = {
        "findings.rst": findings_rst(answers),
        "brief.rst": findings_rst(answers, brief=True),
        "where.rst": where_rst(answers),
    }
    for name, text in texts.items():
        with written_aside(out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [out / name for name in texts]
