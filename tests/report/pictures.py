"""The page without its pictures, which take most of the time."""

from __future__ import annotations

from wiu_pyro.report import page
from wiu_pyro.report.content import FigureGroup


def unpictured(monkeypatch):
    """Leave out the pictures of the answer, the cards and what `figures.drawn` draws for the sections."""
    monkeypatch.setattr(page, "network_figure", lambda posteriors: None)
    monkeypatch.setattr(page, "side_by_side", lambda posteriors: FigureGroup("", ()))
    monkeypatch.setattr("wiu_pyro.report.six_answers._drawn", lambda part, posterior, answer: None)
    monkeypatch.setattr("wiu_pyro.report.weight_questions.drawn", lambda kind, posterior: None)
