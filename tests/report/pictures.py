"""The page without its pictures, which take most of the time."""

from __future__ import annotations

import sys

from wiu_pyro import plots
from wiu_pyro.report import figures, page, prediction
from wiu_pyro.report.content import Figure, FigureGroup


def unpictured(monkeypatch, *, sections=False):
    """Leave out the pictures of the answer, the cards and what `figures.drawn` draws for the sections.

    Sections that draw their own keep their figures' names, captions and texts around an empty picture, or draw them
    with `sections`.
    """
    monkeypatch.setattr(plots, "KINDS", {})
    monkeypatch.setattr(page, "network_figure", lambda posteriors: None)
    monkeypatch.setattr(page, "side_by_side", lambda posteriors: FigureGroup("", ()))
    monkeypatch.setattr(prediction, "drawn", lambda kind, posterior: None)
    monkeypatch.setattr("wiu_pyro.report.six_answers._drawn", lambda part, posterior, answer: None)
    monkeypatch.setattr("wiu_pyro.report.weight_questions.drawn", lambda kind, posterior: None)
    if sections:
        return
    for name in set(plots.__all__) - {"KINDS"}:
        monkeypatch.setattr(plots, name, _nothing)
    embedded = figures.embedded
    for module in [module for name, module in sys.modules.items() if name.startswith("wiu_pyro.report.")]:
        if getattr(module, "embedded", None) is embedded:
            monkeypatch.setattr(module, "embedded", _framed)


def _nothing(*sources, **options):
    return None


def _framed(drawing, name, *, caption="", alt=""):
    return Figure(f"data:{name}", name, 1, 1, caption=caption, alt=alt)
