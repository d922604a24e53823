"""What was fitted on what, whether it had converged, what was not covered, and how to get the same again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wiu_pyro import schema
from wiu_pyro.report.content import Code, Section, Table
from wiu_pyro.report.numbers import MISSING, bytes_in_words, number, percent, seconds_in_words
from wiu_pyro.report.posterior import Posterior, convergence_sentence

__all__ = ["convergence_section", "coverage_section", "reproduce_section", "setup_section"]

Record = Mapping[str, Any]
LONG = 44  # letters beyond which a fact takes a line of its own, after the short ones


def setup_section(posteriors: Sequence[Posterior], record: Record) -> Section:
    """Return what was fitted on what."""
    attrs = posteriors[0].attrs if posteriors else {}
    data, model = record.get("data", {}), record.get("model", {})
    facts = [
        ("Network", _text(model.get("name") or attrs.get("model_name"))),
        ("Weights with a posterior", _total_weights(posteriors)),
        ("Data", _text(data.get("name") or attrs.get("data_name"))),
        ("Training images", _text(data.get("num_train") or attrs.get("num_data"))),
        ("Test images", _text(data.get("num_test"))),
        ("Classes", _text(data.get("num_classes"))),
        ("Image", _image(data.get("image_shape"))),
        ("Input scaling", _text(attrs.get("input_scaling"))),
        ("Prior", _text(attrs.get("prior"))),
        ("Likelihood", _text(attrs.get("likelihood"))),
        ("Seed", _text(record.get("settings", {}).get("seed", attrs.get("seed")))),
        ("Device", _text(record.get("device"))),
        ("Time for all of it", seconds_in_words(record.get("seconds"))),
        ("Peak memory", bytes_in_words(record.get("peak_memory_bytes"))),
    ]
    shown = sorted(((label, value) for label, value in facts if value != MISSING), key=lambda fact: len(fact[1]) > LONG)
    tables = (_posterior_table(posteriors, record),) if posteriors else ()
    return Section("setup", "What was fitted on what", facts=tuple(shown), tables=tables)


def _text(value: Any) -> str:
    if np.ndim(value):  # the seeds of several networks
        return ", ".join(map(str, np.asarray(value).tolist()))
    return MISSING if value in (None, "") else number(value)


def _total_weights(posteriors: Sequence[Posterior]) -> str:
    """Write how many weights have a posterior; for each posterior where that differs."""
    counts = {
        posterior.name: number(
            round(posterior.column("num_uncertain" if "num_uncertain" in posterior.table else "num_weights").sum())
        )
        for posterior in posteriors
    }
    if len(set(counts.values())) <= 1:
        return next(iter(counts.values()), MISSING)
    return ", ".join(f"{count} ({name})" for name, count in counts.items())


def _image(shape: Sequence[int] | None) -> str:
    if not shape or len(shape) != 3:
        return MISSING
    channels, height, width = shape
    return f"{height} × {width}, {channels} channel{'s' if channels > 1 else ''}"


def _posterior_table(posteriors: Sequence[Posterior], record: Record) -> Table:
    columns = ("posterior", "guide", "structure", "curvature", "T", "draws kept", "fit", "export", "file")
    rows = []
    for posterior in posteriors:
        entry, attrs = record.get("posteriors", {}).get(posterior.name, {}), posterior.attrs
        rows.append(
            (
                posterior.name,
                _text(attrs.get("guide")),
                _text(attrs.get("structure")),
                _text(attrs.get("curvature")),
                _text(attrs.get("temperature")),
                number(schema.dataset(posterior.idata, "posterior").sizes.get("draw", 0)),
                _fit_time(entry),
                seconds_in_words(entry.get("export_seconds")),
                bytes_in_words(entry.get("bytes")),
            )
        )
    notes = (_start_note(record),) if _start_note(record) else ()
    return Table("The posteriors", columns, tuple(rows), (*notes, *_prior_notes(posteriors)), words=columns[1:4])


def _prior_notes(posteriors: Sequence[Posterior]) -> tuple[str, ...]:
    """Say of which posteriors the prior is not the model's, and whether their weights were trained under it."""
    notes = []
    for posterior in posteriors:
        prior = str(posterior.attrs.get("prior", ""))
        if prior != str(posteriors[0].attrs.get("prior", "")):
            notes.append(f"{posterior.name}: the prior is not the one above, but {prior}.")
        changed = posterior.attrs.get("prior_tuned")
        if not changed:
            continue
        trained = str(posterior.attrs.get("prior_trained_with", ""))
        warning = (
            " The weights were trained under another prior, so that the posterior's mean is not its mode."
            if trained.startswith("no")
            else ""
        )
        notes.append(f"{posterior.name}: the prior is the one above with {changed}.{warning}")
    return tuple(notes)


def _fit_time(entry: Record) -> str:
    """Write how long a fit took; that trained as the point estimate has no time of its own."""
    if "fit_seconds" in entry and entry["fit_seconds"] is None:
        return "the point estimate's"
    return seconds_in_words(entry.get("fit_seconds"))


_MEMBERS = (
    " Of an ensemble that is the first member; the others start from point estimates of their own, trained from fresh "
    "weights."
)


def _start_note(record: Record) -> str:
    point = record.get("point_estimate", {})
    if not point:
        return ""
    epochs = f"{point['epochs']} epochs, " if point.get("epochs") else ""
    return (
        f"All start from one point estimate of the weights ({epochs}{seconds_in_words(point.get('fit_seconds'))}), "
        "so that they differ by how they describe the uncertainty, not by where training ended."
        f"{_MEMBERS if any(name.startswith('ensemble') for name in record.get('posteriors', {})) else ''}"
    )


def convergence_section(posteriors: Sequence[Posterior]) -> Section:
    """Return whether each fit had converged, with the figure that rests on."""
    terms = tuple((posterior.name, convergence_sentence(posterior.attrs)) for posterior in posteriors)
    closing = (
        "A fit counts as converged when its loss changed by less than 1 % over the last tenth of the epochs, and over "
        "the last tenth of those at the full learning rate, with the KL at full weight. The loss is −ELBO, or −log "
        "joint density where a point was trained: for a Laplace posterior the fit is that of the point estimate it is "
        "built around.",
    )
    return Section(
        "convergence", "Had the fits converged?", tables=(_convergence_table(posteriors, terms),), closing=closing
    )


def _convergence_table(posteriors: Sequence[Posterior], sentences: Sequence[tuple[str, str]]) -> Table:
    rows = tuple(
        (
            posterior.name,
            {"yes": "yes", "no": "NO"}.get(posterior.converged, "not assessed"),
            percent(posterior.attrs.get("convergence_change"), 2),
            percent(posterior.attrs.get("convergence_threshold"), 2),
            sentence,
        )
        for posterior, (_, sentence) in zip(posteriors, sentences, strict=True)
    )
    return Table(
        "Convergence", ("posterior", "converged", "change of the loss", "limit", "in words"), rows, words=("in words",)
    )


def coverage_section(posteriors: Sequence[Posterior], missing: Mapping[str, str]) -> Section:
    """Return what no posterior covers, and which posteriors are missing altogether."""
    lines = [f"{name}: {reason}" for name, reason in missing.items()]
    for posterior in posteriors:
        text = str(posterior.attrs.get("not_covered", ""))
        lines.append(f"{posterior.name}: {text or 'every weight that has a prior is covered.'}")
    structures = tuple(
        (layer, *(_structure(posterior, layer) for posterior in posteriors)) for layer in _all_layers(posteriors)
    )
    names = tuple(posterior.name for posterior in posteriors)
    table = Table("Structure used for each layer", ("layer", *names), structures, words=names)
    return Section("coverage", "What was not covered", intro=tuple(lines), tables=(table,) if structures else ())


def _all_layers(posteriors: Sequence[Posterior]) -> list[str]:
    return list(dict.fromkeys(layer for posterior in posteriors for layer in posterior.layers))


def _structure(posterior: Posterior, layer: str) -> str:
    layers = schema.dataset(posterior.idata, "layers")
    if "structure" not in layers or layer not in posterior.layers:
        return MISSING
    return str(layers["structure"].sel(layer=layer).values)


def reproduce_section(posteriors: Sequence[Posterior], record: Record) -> Section:
    """Return the command, the seed, the versions and the hash of the model script."""
    attrs = posteriors[0].attrs if posteriors else {}
    versions = record.get("versions") or {
        name.removesuffix("_version"): value for name, value in attrs.items() if name.endswith("_version")
    }
    facts = [(name, str(value)) for name, value in versions.items()]
    facts.append(("seed", _text(record.get("settings", {}).get("seed", attrs.get("seed")))))
    sha = record.get("model", {}).get("sha256")
    closing = (f"Model script: SHA-256 {sha}.",) if sha else ()
    code = (Code("The same run again", str(record["command"])),) if record.get("command") else ()
    code += tuple(Code(title, text) for title, text in _look_further(posteriors))
    return Section("reproduce", "How to reproduce it", code=code, facts=tuple(facts), closing=closing)


def _look_further(posteriors: Sequence[Posterior]) -> list[tuple[str, str]]:
    if not posteriors:
        return []
    posterior = posteriors[-1]
    layer = posterior.layers[0]
    lines = [
        "import arviz as az, wiu_pyro as wiu",
        f'idata = wiu.load("posteriors/{posterior.name}.nc")',
        f'az.summary(idata, group="layer_{layer}")',
    ]
    return [("Look further, from this folder", "\n".join(lines))]
