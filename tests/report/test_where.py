"""The layer with the most uncertainty is read off the saved comparison, and said with its figures."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from wiu_pyro import metrics
from wiu_pyro.report import read_answers, where_rst
from wiu_pyro.report.answers import write_answer, write_record

NAN = float("nan")


@pytest.fixture
def said(tmp_path):
    """Write what rows of shares say; `seeds` networks, apart by `spread` on each share."""

    def say(seeds: int = 1, spread: float = 0.0, **rows: list[float]) -> str:
        layers = ["conv1", "fc_1", "fc2"]
        for posterior, row in rows.items():
            noise = spread * np.random.default_rng(0).normal(size=(seeds, 3))
            values = 1 - np.array(row) - (noise - noise.mean(axis=0))
            coords = {"chain": np.arange(seeds), "metric": ["contraction"], "layer": layers}
            value = xr.DataArray(values[:, None], dims=("chain", "metric", "layer"), coords=coords)
            first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
            found = metrics.student_intervals(values[:, first] - values[:, second])
            table = xr.Dataset(
                {
                    "value": value if seeds > 1 else value.isel(chain=0, drop=True),
                    "seeds_low": (("metric", "pair"), found.low[None]),
                    "seeds_high": (("metric", "pair"), found.high[None]),
                    "first": ("pair", [layers[i] for i in first]),
                    "second": ("pair", [layers[i] for i in second]),
                },
                attrs={"interval": "seeds" if seeds > 4 else "within one network"},
            )
            write_answer(tmp_path / "net", table, posterior=posterior, name="between_layers")
        record = {
            "posteriors": dict.fromkeys(rows, []),
            "seeds": [*range(seeds)],
            "about": "A network.",
            "layers": layers,
        }
        write_record(tmp_path / "net", record)
        return where_rst(read_answers(tmp_path)).replace("\\", "")

    return say


def test_what_intervals_over_the_seeds_do_not_tell_apart_is_said(said):
    text = said(seeds=5, spread=0.01, kfac=[0.1, 0.9, 0.4])
    assert "greatest in 'fc_1', and least in 'conv1' (by kfac). In brackets: 95 % intervals over 5 seeds" in text
    text = said(seeds=5, spread=0.1, kfac=[0.1, 0.9, 0.85])
    assert "greatest in 'fc_1', not told apart from 'fc2', and least in 'conv1' (by kfac)" in text


def test_intervals_are_students_together_over_the_layers(said):
    text = said(seeds=5, spread=0.01, kfac=[0.5, 0.9, 0.4])
    noise = 0.01 * np.random.default_rng(0).normal(size=(5, 3))
    reach = stats.t.isf(0.025 / 3, 4) * noise.std(axis=0, ddof=1) / np.sqrt(5)
    ends = [f"{100 * (0.9 + sign * reach[1]):.0f} %" for sign in (-1, 1)]
    assert f"**90 %** ({ends[0]} to {ends[1]})" in text


def test_few_seeds_have_no_interval_and_it_is_said(said):
    text = said(seeds=2, spread=0.01, kfac=[0.5, 0.9, 0.4])
    assert "Too few seeds for intervals." in text
    assert "- **90 %**\n" in text


def test_posteriors_that_agree_are_one_sentence(said):
    text = said(kfac=[0.1, 0.9, 0.4], diagonal=[0.2, 0.8, 0.3])
    assert "greatest in 'fc_1', and least in 'conv1' (by all of kfac, diagonal)." in text


def test_posteriors_that_differ_are_each_quoted(said):
    text = said(kfac=[0.1, 0.9, 0.4], diagonal=[0.9, 0.8, 0.3])
    assert "in 'fc_1', and least in 'conv1' (by kfac); in 'conv1', and least in 'fc2' (by diagonal)." in text


def test_each_share_is_a_cell_and_the_greatest_is_bold(said):
    text = said(kfac=[0.104, 0.896, NAN])
    assert text.index("- 10 %") < text.index("- **90 %**") < text.index("- –")


def test_a_posterior_that_cannot_tell_layers_apart_has_no_row(said):
    text = said(kfac=[0.1, 0.9, 0.4], last=[NAN, NAN, 0.4], ensemble=[NAN, NAN, NAN])
    assert "kfac" in text
    assert "last" not in text
    assert "ensemble" not in text


def test_a_network_without_a_comparison_is_left_out(tmp_path):
    write_record(tmp_path / "net", {"posteriors": {}, "seeds": [0]})
    assert where_rst(read_answers(tmp_path)) == ""
