from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.report.pictures import unpictured
from tests.synthetic import CONV_LAYERS, hold, synthetic
from wiu_pyro import plots, schema
from wiu_pyro.errors import OutputError
from wiu_pyro.export.container import build
from wiu_pyro.report import Posterior, render, write_report
from wiu_pyro.report.captions import caption
from wiu_pyro.report.figures import drawn, figure_group
from wiu_pyro.report.layer_section import layer_section
from wiu_pyro.report.prediction import declined_section, paired_table, prediction_section, prediction_tables
from wiu_pyro.report.setup import coverage_section, reproduce_section, setup_section

RECORD = {
    "finished": True,
    "command": "wiu run digits_mlp --seed 3",
    "settings": {"seed": 3},
    "model": {"name": "digits_mlp", "sha256": "ab" * 32},
    "data": {"name": "digits", "num_train": 1437, "num_test": 360, "num_classes": 10, "image_shape": [1, 8, 8]},
    "versions": {"python": "3.11.0", "torch": "2.15.0"},
    "point_estimate": {"epochs": 60, "fit_seconds": 8.2},
    "posteriors": {"mean-field": {"fit_seconds": None, "bytes": 3_200_000}},
}


@pytest.fixture(autouse=True)
def _no_figure_left():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def unplotted(monkeypatch):
    """Leave the pictures out, which take most of the time."""
    unpictured(monkeypatch)


def held(*layers, every=1, **options):
    """A posterior with some layers at their point estimate, or every so manieth weight of them."""
    idata = synthetic(seed=3, factorised=False, **options).idata
    for layer in layers:
        idata = hold(idata, layer, every=every)
    return Posterior.read("laplace-last", idata)


def mean_field(**options):
    return Posterior.read("mean-field", synthetic(seed=1, **options).idata)


def kfac(**options):
    return Posterior.read("laplace-kfac", synthetic(seed=3, factorised=False, **options).idata)


class Links(HTMLParser):
    """Collects everything a page would fetch, and checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self):
        super().__init__()
        self.fetched, self.open, self.images = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and not value.startswith(("data:", "#")):
                self.fetched.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(html):
    parser = Links()
    parser.feed(html)
    assert parser.open == []
    return parser


def cells(table):
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.mark.slow
def test_the_page_fetches_nothing_and_holds_its_pictures():
    html = render([mean_field(), kfac()], RECORD)
    parser = read(html)
    assert parser.fetched == []
    assert "url(" not in html
    assert "@import" not in html
    assert parser.images >= 10


@pytest.mark.usefixtures("unplotted")
def test_every_link_on_the_page_leads_to_a_section():
    html = render([mean_field(), kfac()], RECORD)
    assert set(re.findall(r'href="#([\w-]+)"', html)) == set(re.findall(r'section id="([\w-]+)"', html))


@pytest.mark.usefixtures("unplotted")
def test_an_unconverged_posterior_is_said_before_the_answer_and_beside_its_figures():
    html = render([mean_field(converged="no"), kfac()], RECORD)
    assert html.index('class="alert"') < html.index('id="answer"')
    assert html.count("mean-field (not converged)") >= 3


@pytest.mark.usefixtures("unplotted")
def test_a_converged_run_has_no_alert():
    assert 'class="alert"' not in render([mean_field(), kfac()], RECORD)


@pytest.mark.usefixtures("unplotted")
def test_names_from_outside_are_escaped():
    record = RECORD | {"data": {"name": "<script>alert(1)</script>"}}
    html = render([mean_field()], record, missing={"<b>": "gone"})
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)" in html


@pytest.mark.parametrize("record", [RECORD, {}], ids=["full-record", "empty-record"])
@pytest.mark.parametrize(
    "posteriors",
    [
        lambda: [],
        lambda: [mean_field()],
        lambda: [kfac(likelihood="normal")],
        lambda: [mean_field(num_chains=2), kfac(num_chains=2)],
        lambda: [mean_field(layers=CONV_LAYERS)],
        lambda: [mean_field(), kfac(layers=CONV_LAYERS)],
        lambda: [mean_field(), kfac(data_seed=8)],
        lambda: [mean_field(estimated=True, converged="not assessed", images=False, point=False)],
        lambda: [held("fc1", "fc2")],
        lambda: [kfac(), held("fc1", "fc2")],
        lambda: [held("fc1", "fc2", "out", every=3, num_chains=2)],
    ],
    ids=[
        "none",
        "one",
        "regression",
        "chains",
        "conv",
        "other-layers",
        "other-data",
        "least",
        "last",
        "beside-last",
        "subnetwork",
    ],
)
def test_the_page_is_whole_whatever_is_there(posteriors, record, monkeypatch):
    unpictured(monkeypatch, sections=bool(record))
    html = render(posteriors(), record)
    read(html)
    assert html.rstrip().endswith("</html>")
    assert ">nan<" not in html
    assert "None" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"likelihood": "normal"}, {"layers": CONV_LAYERS}, {"images": False}])
def test_pictures_a_file_cannot_give_are_left_out(options):
    assert read(render([mean_field(**options)], RECORD)).images >= 3


def test_effective_parameters_and_contraction_sum_are_different_columns():
    tables = {table.title: table for table in layer_section([mean_field(), kfac()]).tables}
    assert "contraction sum" in tables["mean-field"].columns
    assert "effective parameters" not in tables["mean-field"].columns
    assert "effective parameters" in tables["laplace-kfac"].columns
    assert "contraction sum" not in tables["laplace-kfac"].columns


def test_side_by_side_stands_conditional_beside_a_factorised_contraction():
    factorised, correlated = mean_field(), kfac()
    row = cells(layer_section([factorised, correlated]).tables[0])["fc1"]
    assert float(row["mean-field"]) == pytest.approx(factorised.column("contraction")[0], abs=5e-4)
    assert float(row["laplace-kfac"]) == pytest.approx(correlated.column("conditional_contraction")[0], abs=5e-4)
    assert float(row["laplace-kfac, marginal"]) == pytest.approx(correlated.column("contraction")[0], abs=5e-4)


def test_every_column_shown_is_explained():
    section = layer_section([mean_field(), kfac()])
    explained = {name for name, _ in section.terms}
    assert {column for table in section.tables[1:] for column in table.columns} - {"layer"} <= explained


def test_prediction_table_gives_accuracy_with_its_standard_error():
    posterior = mean_field()
    row = cells(prediction_tables([posterior])[0])["mean-field"]
    predicted = posterior.idata["predictive_sampled"]["mean"].values[0].argmax(-1)
    hit = predicted == posterior.idata["observed_data"]["obs"].values
    se = hit.std(ddof=1) / hit.size**0.5
    assert row["accuracy"] == f"{100 * hit.mean():.2f} ± {100 * se:.2f} %"


def test_a_posterior_that_predicts_worse_than_its_point_estimate_is_said_to():
    good, bad = mean_field(noise=0.1), kfac(noise=8.0)
    (table,) = prediction_tables([good, bad])
    p, point = (bad.idata["predictive_linearised"][name].values[0].astype(float) for name in ("mean", "point_mean"))
    labels = bad.idata["observed_data"]["obs"].values
    above = np.log(point[np.arange(labels.size), labels]) - np.log(p[np.arange(labels.size), labels])
    figures = f"{above.mean():.4f} ± {above.std(ddof=1) / labels.size**0.5:.4f}"
    assert above.mean() > 2 * above.std(ddof=1) / labels.size**0.5
    (note,) = table.notes
    assert f"Worse than the point estimate in NLL, nats per image: laplace-kfac by {figures} (paired" in note
    assert prediction_tables([good])[0].notes == ()


def test_a_shared_point_estimate_is_one_row():
    names = [row[0] for row in prediction_tables([mean_field(), kfac()])[0].rows]
    assert names == ["mean-field", "laplace-kfac", "point estimate"]


@pytest.mark.usefixtures("unplotted")
def test_each_posteriors_predictive_is_named_with_the_reason():
    intro = " ".join(prediction_section([mean_field(), kfac()]).intro)
    assert "mean-field: sampled predictive" in intro
    assert "laplace-kfac: linearised predictive" in intro


def test_paired_differences_name_the_best_and_refuse_other_data():
    (table,) = paired_table([mean_field(), kfac()])
    assert [row[-1] for row in table.rows].count("best") == 1
    (refused,) = paired_table([mean_field(), kfac(data_seed=8)])
    assert "same observations" in refused.rows[0][1]


def test_without_predictions_the_section_says_so():
    idata = synthetic().idata
    bare = build({name: schema.dataset(idata, name) for name in ("posterior", "layers", "moments_fc1")})
    section = prediction_section([Posterior("mean-field", bare, {}, mean_field().table)])
    assert section.intro == ("The files hold no predictions: they were exported without test data.",)


def test_declined_images_without_pictures_are_a_table():
    (table,) = declined_section([mean_field(images=False)]).tables
    assert table.title == "Declined first by mean-field"
    entropies = [float(row[-1]) for row in table.rows]
    assert entropies == sorted(entropies, reverse=True)


def test_equal_pictures_are_shown_once_for_all_they_show():
    from wiu_pyro.report.content import Figure

    same, other = Figure("data:a", "laplace-diag", 1, 1), Figure("data:b", "mean-field", 1, 1)
    group = figure_group("loss", [same, None, other, Figure("data:a", "laplace-kfac", 1, 1)])
    assert [figure.name for figure in group.figures] == ["laplace-diag, laplace-kfac", "mean-field"]


def test_every_figure_says_what_to_see_and_what_it_is_of():
    for kind in plots.KINDS:
        figure = drawn(kind, kfac())
        assert figure.caption.endswith("."), kind
        assert figure.alt, kind
        assert figure.name == "laplace-kfac"


def test_caption_of_the_reliability_diagram_sets_confidence_against_accuracy():
    posterior = mean_field()
    p = posterior.idata["predictive_sampled"]["mean"].values[0]
    hit = p.argmax(-1) == posterior.idata["observed_data"]["obs"].values
    said = caption("reliability", posterior)
    assert f"Right in {100 * hit.mean():.1f} % of images at a mean confidence of {100 * p.max(-1).mean():.1f} %" in said


def test_captions_count_what_they_name():
    posterior = mean_field()
    moments = schema.dataset(posterior.idata, "moments_fc1")
    ratio = np.sqrt(np.mean((moments["sd"].values[0] / moments["prior_sd"].values) ** 2, axis=0))
    images = schema.dataset(posterior.idata, "constant_data")["x"].values.reshape(120, -1)
    at_prior, dead = np.abs(ratio - 1) <= 0.01, images.std(axis=0) == 0
    assert 0 < at_prior.sum() < at_prior.size / 2
    said = caption("input-map", posterior)
    assert f"{at_prior.sum()} of 64 pixels are within 1 % of the prior" in said
    assert f"among them {(at_prior & dead).sum()} of the {dead.sum()} that are the same" in said

    data, labels = (schema.dataset(posterior.idata, name) for name in ("predictive_sampled", "observed_data"))
    wrong = data["mean"].values[0].argmax(-1) != labels["obs"].values
    order = np.argsort(data["predictive_entropy"].values[0])
    said = caption("declined-images", posterior)
    assert f"{wrong[order[-12:]].sum()} of these 12 are classified wrong, against {100 * wrong.mean():.1f} %" in said
    said = caption("risk-coverage", posterior)
    assert f"from {100 * wrong.mean():.2f} % to {100 * wrong[order[:108]].mean():.2f} %" in said

    medians = posterior.table["sd_to_prior"].values
    widest = posterior.layers[int(medians.argmax())]
    assert f"Median sd / prior sd: {medians.max():.3f} in {widest}" in caption("layer-uncertainty", posterior)


@pytest.mark.parametrize(
    ("confidence", "said"),
    [
        (0.60, "more often than it says"),
        (0.80, "as often as it says, within two standard errors"),
        (0.99, "less often than it says"),
    ],
)
def test_caption_of_the_reliability_diagram_says_which_way_confidence_is_off(confidence, said):
    posterior = mean_field()
    groups = {name: schema.dataset(posterior.idata, name) for name in schema.groups(posterior.idata)}
    labels = np.where(np.arange(120) % 5, 0, 1)  # class 0 in 96 of 120 images: right in 80 %, se 3.7 %
    p = np.full((1, 120, 10), (1 - confidence) / 9)
    p[..., 0] = confidence
    groups["predictive_sampled"]["mean"].values[:] = p
    groups["observed_data"]["obs"].values[:] = labels
    assert f"{100 * confidence:.1f} %: {said}." in caption("reliability", Posterior("q", build(groups), {}, None))


def test_tiny_signal_to_noise_is_written_as_below_a_thousandth():
    posterior = kfac()
    posterior.table["snr_q05"][0] = 1.2e-41
    table = {table.title: table for table in layer_section([posterior]).tables}["laplace-kfac"]
    median, spread = cells(table)["fc1"]["|mean| / sd"].split("\n")
    assert float(median) == pytest.approx(float(posterior.table["snr_q50"][0]), rel=1e-2)
    assert spread.startswith("< 0.001 – ")


@pytest.mark.usefixtures("unplotted")
def test_a_long_prior_has_a_line_of_its_own_after_the_short_facts():
    posterior = mean_field()
    posterior.attrs["prior"] = (
        "fc1.weight: FanInNormal(weights N(0, 2/(fan_in·0.235)), biases N(0, 1)); *: FanInNormal()"
    )
    assert setup_section([posterior], RECORD).facts[-1] == ("Prior", posterior.attrs["prior"])
    assert '<div class="long"><dt>Prior</dt>' in render([posterior], RECORD)


def test_setup_says_what_was_fitted_on_what():
    facts = dict(setup_section([mean_field()], RECORD).facts)
    assert facts["Data"] == "digits"
    assert facts["Training images"] == "1,437"
    assert facts["Image"] == "8 × 8, 1 channel"
    assert facts["Weights with a posterior"] == "1,374"


def test_the_command_the_seed_and_the_versions_are_given():
    section = reproduce_section([mean_field()], RECORD)
    assert section.code[0].text == "wiu run digits_mlp --seed 3"
    assert dict(section.facts) == {"python": "3.11.0", "torch": "2.15.0", "seed": "3"}


def test_a_missing_posterior_is_named_among_what_was_not_covered():
    assert "laplace-full: cut off" in coverage_section([mean_field()], {"laplace-full": "cut off"}).intro


@pytest.mark.usefixtures("unplotted")
def test_the_page_is_written_beside_the_record(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    written = write_report(tmp_path, [mean_field()])
    assert written == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run.json"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"a run \(with a run\.json\) is needed"):
        write_report(tmp_path, [])


def test_layers_at_their_point_estimate_have_dashes_and_are_named():
    (table,) = layer_section([held("fc1", "fc2")]).tables
    rows = cells(table)
    for column in ("contraction", "sd / prior sd", "|mean| / sd", "KL, nats", "effective parameters"):
        assert set(rows["fc1"][column]) <= set("– \n"), column
        assert "–" not in rows["out"][column].split("\n")[0], column
    assert rows["fc1"]["with a posterior"] == "0"
    assert "At the point estimate, without an uncertainty: fc1, fc2." in table.notes
    assert "No KL for some layers: a layer at its point estimate has no density." in table.notes


def test_setup_counts_the_weights_with_a_posterior():
    facts = dict(setup_section([kfac(), held("fc1", "fc2")], RECORD).facts)
    assert facts["Weights with a posterior"] == "1,374 (laplace-kfac), 130 (laplace-last)"


def test_caption_of_the_layers_names_those_at_their_point_estimate():
    said = caption("layer-uncertainty", held("fc1"))
    assert "At the point estimate, without an uncertainty: fc1." in said
    assert "nan" not in said
