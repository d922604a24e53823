"""Every analysis runs alone, here with two epochs, few draws and short chains."""

import functools
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import wiu_pyro as wiu

ANALYSES = sorted((Path(__file__).parents[2] / "analyses").glob("*.py"))


@pytest.fixture
def _small(monkeypatch):
    fit, export = wiu.fit, wiu.to_inference_data

    @functools.wraps(fit)
    def short_fit(*arguments, epochs=20, **options):
        return fit(*arguments, epochs=min(epochs, 2), **options)

    nuts = wiu.testing.nuts_posterior
    chains = {"num_samples": 15, "warmup_steps": 15, "num_chains": 2, "max_tree_depth": 4}
    monkeypatch.setattr(wiu.testing, "nuts_posterior", lambda *given, **options: nuts(*given, **(options | chains)))
    monkeypatch.setattr(wiu.infer, "fit", short_fit)
    monkeypatch.setattr(wiu.export, "to_inference_data", functools.partial(export, num_samples=20))
    monkeypatch.setattr(plt, "show", lambda: None)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_analysis_runs_alone(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert plt.get_fignums()


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_analysis_finds_its_files_where_the_documentation_runs_it(path):
    """sphinx-gallery runs a script's text, in which ``__file__`` is not defined; ``sys.argv[0]`` is its path."""
    assert "__file__" not in path.read_text(encoding="utf-8")
