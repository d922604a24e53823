"""What a run keeps of its layers through the training, and that it survives the point estimate's file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyro.infer import autoguide

import wiu_pyro as wiu
from wiu_pyro import schema
from wiu_pyro.cli import main
from wiu_pyro.cli.point import PointEstimate
from wiu_pyro.cli.settings import RunSettings
from wiu_pyro.cli.tracking import track_of
from wiu_pyro.errors import DataError
from wiu_pyro.guides import AutoKFACLaplace, AutoMeanField
from wiu_pyro.infer import TrackConfig
from wiu_pyro.testing import small_classifier

SCRIPT = """
import torch
import wiu_pyro as wiu

DATA = "digits"


def build(num_classes, in_channels, image_size):
    height, width = image_size
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * height * width, num_classes))
    return wiu.nn.BayesianNetwork(net)
"""


def model():
    return small_classifier()[0]


@pytest.mark.parametrize(
    ("guide_class", "epochs", "every", "expected"),
    [
        (AutoMeanField, 150, None, TrackConfig()),
        (AutoMeanField, 700, None, TrackConfig(every=3)),
        (autoguide.AutoNormal, 20, None, TrackConfig()),
        (AutoKFACLaplace, 20, None, TrackConfig()),
        (AutoKFACLaplace, 150, None, TrackConfig(every=5)),
        (autoguide.AutoLaplaceApproximation, 90, None, TrackConfig(every=3)),
        (AutoMeanField, 20, 4, TrackConfig(every=4)),
        (autoguide.AutoLowRankMultivariateNormal, 20, 4, TrackConfig(every=4)),
        (autoguide.AutoLowRankMultivariateNormal, 20, None, None),
        (autoguide.AutoDelta, 20, 4, None),
        (AutoMeanField, 20, 0, None),
        (AutoKFACLaplace, 0, None, None),
    ],
)
def test_what_is_cheap_is_kept_unless_asked_otherwise(guide_class, epochs, every, expected):
    assert track_of(guide_class(model()), epochs, every) == expected


def test_the_track_of_a_point_estimate_survives_its_file(tmp_path):
    network, data = small_classifier()
    fit = wiu.fit(network, AutoKFACLaplace(network), data, epochs=3, track="epoch")
    PointEstimate.of(fit).save(tmp_path / "point.pt")
    point = PointEstimate.load(tmp_path / "point.pt")
    bare = wiu.fit(network, AutoKFACLaplace(network), data, epochs=0, start=point.weights)
    lent = point.lend_training_to(bare).track
    assert (lent.layers, lent.unit, lent.curvature) == (fit.track.layers, "epochs", "ggn")
    for name, values in fit.track.figures.items():
        np.testing.assert_array_equal(lent.figures[name], values)
    np.testing.assert_array_equal(lent.step, fit.track.step)


def test_a_point_estimate_of_an_earlier_run_has_no_track(tmp_path):
    network, data = small_classifier()
    point = PointEstimate.of(wiu.fit(network, AutoKFACLaplace(network), data, epochs=2))
    old = {name: value for name, value in vars(point).items() if name != "track"}
    torch.save(old, tmp_path / "point.pt")
    assert PointEstimate.load(tmp_path / "point.pt").track == {}


def test_a_negative_number_of_epochs_is_refused():
    with pytest.raises(DataError, match="--track-every must be at least 0, got -1"):
        RunSettings(track_every=-1).check()


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize(("options", "tracked"), [([], True), (["--track-every", "0"], False)])
def test_a_run_keeps_the_layers_of_every_posterior_it_trains(tmp_path, options, tracked):
    arguments = ["--epochs", "2", "--num-samples", "5", "--no-report"]
    arguments += ["--guides", "mean-field,laplace-diag,laplace-kfac", *options]
    (tmp_path / "tiny.py").write_text(SCRIPT)
    assert main(["run", str(tmp_path / "tiny.py"), "--out", str(tmp_path / "run"), *arguments]) == 0
    for name in ("mean-field", "laplace-diag", "laplace-kfac"):
        data = schema.dataset(wiu.load(tmp_path / "run" / "posteriors" / f"{name}.nc"), "training")
        assert ("kl_per_weight" in data) is tracked
