"""Images out of distribution: brought to the channels and the size of the run's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import wiu_pyro as wiu
from wiu_pyro.cli.stochastic_command import images_away
from wiu_pyro.errors import DataError


@pytest.mark.parametrize("channels", [1, 3])
def test_images_away_come_in_the_form_of_the_runs(channels, tmp_path):
    digits = wiu.datasets.load("digits", split="test")
    pixels = digits.pixels.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, channels, -1, -1)
    own = replace(digits, pixels=pixels)
    if channels == 3:
        own = own.normalised((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    plan = SimpleNamespace(test=own, settings=SimpleNamespace(data_root=None))
    away = images_away("digits", plan, None)
    assert away.shape == own.images.shape
    # smoothed between pixels, so their means over the image are nearly kept
    np.testing.assert_allclose(away.mean((2, 3)), own.images.mean((2, 3)), atol=0.15)
    assert torch.corrcoef(torch.stack([away.flatten(), own.images.flatten()]))[0, 1] > 0.95


def test_coloured_images_away_of_a_grey_run_are_refused(tmp_path):
    grey = wiu.datasets.load("digits", split="test")
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a" / "0.png")
    plan = SimpleNamespace(test=grey, settings=SimpleNamespace(data_root=None))
    with pytest.raises(DataError, match="need 1 channels, as the run's have, or one, but those of .* have 3"):
        images_away(str(tmp_path), plan, None)
