"""How good the predictions are, which predictive they come from, and what a classifier that may decline leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from wiu_pyro import diagnostics, schema
from wiu_pyro.errors import SchemaError
from wiu_pyro.report.content import Section, Table
from wiu_pyro.report.figures import drawn, figure_group
from wiu_pyro.report.numbers import MISSING, estimate, number, percent
from wiu_pyro.report.posterior import Posterior

__all__ = ["declined_section", "paired_table", "prediction_section", "prediction_tables"]

WHY = {
    "linearised": "the network is made linear in its weights around the point estimate, which is the model a Laplace "
    "posterior belongs to; networks sampled from it leave the region where it holds and usually predict worse",
    "sampled": "networks are drawn from the posterior and their class probabilities averaged",
}
LINKS = {
    "probit": "class probabilities by the probit approximation",
    "bridge": "class probabilities by the Laplace bridge",
    "bridge_norm": "class probabilities by the Laplace bridge with normalised variances",
}
WORSE = 0.1  # share of the point estimate's NLL below which a difference is none worth a warning
LESS_ACCURATE = 0.005  # the same of accuracy, share of the images
NO_PREDICTIONS = "The files hold no predictions: they were exported without test data."

# heading, variable, how a mean over chains is written; a variable with a standard error is written with it
CLASSIFIER: tuple[tuple[str, str, bool], ...] = (
    ("accuracy", "accuracy", True),
    ("NLL, nats", "nll", True),
    ("Brier", "brier", True),
    ("ECE", "ece", False),
    ("entropy, nats", "predictive_entropy", False),
    ("… aleatoric", "expected_entropy", False),
    ("… epistemic", "mutual_information", False),
    ("AURC", "aurc", False),
    ("AUROC of errors", "auroc_error", False),
)
REGRESSION: tuple[tuple[str, str, bool], ...] = (
    ("RMSE", "rmse", False),
    ("NLL, nats", "nll", True),
    ("inside the interval", "interval_coverage", True),
)
TERMS = {
    "accuracy": "Share of images classified right, ± its standard error over the images.",
    "NLL, nats": "Mean negative log probability of the right answer: lower is better.",
    "Brier": "Squared distance between predicted and true class probabilities, summed over classes: lower is better.",
    "ECE": "Expected calibration error, the gap between confidence and accuracy: 0 is best.",
    "entropy, nats": "Mean entropy of the predictive: how undecided it is in all.",
    "… aleatoric": "The part that stays when the weights are known: images that are ambiguous in themselves.",
    "… epistemic": "The part that comes from not knowing the weights (mutual information).",
    "AURC": "Error rate averaged over all shares of images answered, most uncertain declined first: lower is better.",
    "AUROC of errors": "How well the entropy tells wrong answers from right ones: 0.5 is chance, 1 perfect.",
    "RMSE": "Root mean squared error of the predictive mean, in units of the target.",
    "inside the interval": "Share of targets inside the 95 % interval: 95 % is right.",
}


def prediction_section(posteriors: Sequence[Posterior]) -> Section:
    """Return the quality of each posterior's predictions, paired differences, and the figures that go with it."""
    tables = prediction_tables(posteriors)
    if not tables:
        return Section("predictions", "How good are the predictions?", intro=(NO_PREDICTIONS,))
    paired = paired_table(posteriors)
    heads = {column for table in tables for column in table.columns}
    terms = tuple((name, text) for name, text in TERMS.items() if name in heads)
    kinds = ("reliability", "risk-coverage")
    groups = [figure_group(kind, [drawn(kind, posterior) for posterior in posteriors]) for kind in kinds]
    return Section(
        "predictions",
        "How good are the predictions?",
        intro=_which(posteriors),
        tables=(*tables, *paired),
        terms=terms,
        figure_groups=tuple(group for group in groups if group.figures),
    )


def _which(posteriors: Sequence[Posterior]) -> tuple[str, ...]:
    """Say which predictive is used for which posterior, and why."""
    users: dict[str, list[str]] = {}
    for posterior in posteriors:
        for group in posterior.predictive_groups[:1]:
            kind = group.removeprefix("predictive_")
            link = LINKS.get(str(schema.dataset(posterior.idata, group).attrs.get("link", "")), "")
            members = posterior.attrs.get("members")
            mixed = f"; of all {members} members together, all alike" if members else ""
            text = f"{kind} predictive — {WHY.get(kind, '')}{f'; {link}' if link else ''}{mixed}."
            users.setdefault(text, []).append(posterior.name)
    return tuple(f"{', '.join(names)}: {text}" for text, names in users.items())


def prediction_tables(posteriors: Sequence[Posterior]) -> tuple[Table, ...]:
    """Return the tables of predictive quality: one of classifiers, one of regressions, those that have rows.

    Parameters
    ----------
    posteriors : sequence of Posterior

    Returns
    -------
    tuple of Table
    """
    results = [(*entry, entry[1].attrs) for entry in _results(posteriors)]
    tables = []
    for title, key, columns in (("Classifier", "accuracy", CLASSIFIER), ("Regression", "rmse", REGRESSION)):
        mine = [(name, result) for name, result, _ in results if key in result]
        if not mine:
            continue
        attrs = mine[0][1].attrs
        rows = [(name, *_row(result, columns, "")) for name, result in mine]
        rows += _point_rows(mine, columns)
        head = f"{title}, {number(int(attrs['num_obs']))} {attrs.get('split') or ''} observations".replace("  ", " ")
        notes = (*_worse(mine), *_less_accurate(mine))
        tables.append(Table(head, ("posterior", *(column[0] for column in columns)), tuple(rows), notes))
    return tuple(tables)


def _results(posteriors: Sequence[Posterior]) -> list[tuple[str, xr.Dataset]]:
    found = []
    for posterior in posteriors:
        for position, group in enumerate(posterior.predictive_groups):
            kind = group.removeprefix("predictive_")
            try:
                result = diagnostics.predictive(posterior.idata, kind)
            except SchemaError:
                continue
            name = posterior.name if position == 0 else f"{posterior.name}, {kind}"
            found.append((f"{name}{posterior.mark}", result))
    return found


def _row(result: xr.Dataset, columns: Sequence[tuple[str, str, bool]], prefix: str) -> tuple[str, ...]:
    cells = []
    for _, name, with_se in columns:
        value = _mean(result, prefix + name)
        if value is None:
            cells.append(MISSING)
        elif name in ("accuracy", "interval_coverage"):
            cells.append(_percent_with_se(value, _mean(result, f"{prefix}{name}_se")))
        elif with_se:
            cells.append(estimate(value, _mean(result, f"{prefix}{name}_se"), 4))
        else:
            cells.append(number(value))
    return tuple(cells)


def _mean(result: xr.Dataset, name: str) -> float | None:
    """Return a figure, averaged over chains, or None where there is none."""
    return float(np.mean(result[name].values)) if name in result else None


def _percent_with_se(value: float, standard_error: float | None) -> str:
    spread = f" ± {100 * standard_error:.2f}" if standard_error is not None and np.isfinite(standard_error) else ""
    return f"{100 * value:.2f}{spread} %"


def _point_rows(
    results: Sequence[tuple[str, xr.Dataset]], columns: Sequence[tuple[str, str, bool]]
) -> list[tuple[str, ...]]:
    """Return one row per different point estimate, named by the posteriors that share it."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, result in results:
        cells = _row(result, columns, "point_")
        if any(cell != MISSING for cell in cells):
            shared.setdefault(cells, []).append(name)
    return [
        ("point estimate" if len(shared) == 1 else f"point estimate, {', '.join(names)}", *cells)
        for cells, names in shared.items()
    ]


def _worse(results: Sequence[tuple[str, xr.Dataset]]) -> tuple[str, ...]:
    """Warn of posteriors whose NLL is above their own point estimate's: by a tenth, and by 2 standard errors."""
    found = []
    for name, result in results:
        above, error = (_mean(result, f"nll_above_point{end}") for end in ("", "_se"))
        point = _mean(result, "point_nll")
        if above is not None and error is not None and point is not None and above > max(2 * error, WORSE * point):
            found.append(f"{name} by {estimate(above, error, 4)}")
    if not found:
        return ()
    return (
        f"Worse than the point estimate in NLL, nats per image: {', '.join(found)} (paired over the images). "
        "Where probabilities count, the point estimate is the better choice there; the layer figures rest on the same "
        "approximation.",
    )


def _less_accurate(results: Sequence[tuple[str, xr.Dataset]]) -> tuple[str, ...]:
    """Warn of Laplace posteriors whose sampled networks classify fewer images right than their point estimate."""
    found = []
    for name, result in results:
        lost, error = (_mean(result, f"accuracy_below_point{end}") for end in ("", "_se"))
        sampled = result.attrs.get("kind") == "sampled" and result.attrs.get("prediction_default") == "linearised"
        if sampled and lost is not None and error is not None and lost > max(2 * error, LESS_ACCURATE):
            found.append(f"{name} by {100 * lost:.2f} ± {100 * error:.2f} points")
    if not found:
        return ()
    return (
        f"Fewer images right by sampled networks than by the point estimate: {', '.join(found)} (paired over the "
        "images). They leave the region where a Laplace approximation holds: use the linearised predictive.",
    )


def paired_table(posteriors: Sequence[Posterior]) -> tuple[Table, ...]:
    """Return the paired differences in log predictive density, or nothing where there is nothing to pair."""
    usable = {posterior.name: posterior.idata for posterior in posteriors if posterior.predictive_groups}
    if len(usable) < 2:
        return ()
    try:
        result = diagnostics.compare(usable)
    except SchemaError as error:
        return (Table("Paired differences", ("posterior", "why not"), (("none", str(error)),), words=("why not",)),)
    if "elpd_diff" not in result:
        return ()
    best = result.attrs["best"]
    rows = tuple((name, *_paired_cells(result.sel(posterior=name), best=name == best)) for name in usable)
    note = (
        "Sum over the images of the log predictive density of the right answer, ± standard error. Differences are "
        "taken image by image, which takes out what makes an image hard for all; within 2 standard errors of 0, "
        "the data do not tell the two apart."
    )
    columns = ("posterior", "log predictive density, nats", f"difference from {best}, nats")
    return (Table("Paired differences", columns, rows, (note,)),)


def _paired_cells(row: xr.Dataset, *, best: bool) -> tuple[str, str]:
    total, gap = (estimate(row[name].item(), row[f"{name}_se"].item(), 1) for name in ("elpd", "elpd_diff"))
    return total, "best" if best else gap


def declined_section(posteriors: Sequence[Posterior]) -> Section:
    """Return the images a classifier that may decline would decline first, as pictures or as a table."""
    group = figure_group("declined-images", [drawn("declined-images", posterior) for posterior in posteriors])
    intro = ("Images each posterior's predictive is least sure of, most uncertain first.",)
    groups = (group,) if group.figures else ()
    tables = () if groups else tuple(table for posterior in posteriors[:1] for table in _declined_table(posterior))
    if not groups and not tables:
        return Section("declined", "Images declined first")
    return Section("declined", "Images declined first", intro=intro, tables=tables, figure_groups=groups)


def _declined_table(posterior: Posterior, show: Callable[[float], str] = percent) -> list[Table]:
    try:
        result = diagnostics.predictive(posterior.idata)
    except SchemaError:
        return []
    if "declined" not in result:
        return []
    one = result.isel(chain=0) if "chain" in result.dims else result
    rows = tuple(
        (
            number(int(row["declined"])),
            number(int(row["declined_label"])),
            number(int(row["declined_predicted"])),
            show(float(row["declined_probability"])),
            number(float(row["declined_entropy"])),
        )
        for row in (one.isel(rank=i) for i in range(min(10, one.sizes["rank"])))
    )
    columns = ("image", "class", "predicted", "probability", "entropy, nats")
    return [Table(f"Declined first by {posterior.name}", columns, rows)]
