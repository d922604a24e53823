"""Images kept as bytes: what a network gets of them, whole or batch by batch."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import wiu_pyro as wiu
from wiu_pyro.datasets import FlipAndCrop, ImageData, Scaling
from wiu_pyro.errors import DataError
from wiu_pyro.nn import as_batches
from wiu_pyro.nn.numbered import numbered_batches


@pytest.fixture
def colour():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 3, 5, 4), generator=generator, dtype=torch.uint8)
    return ImageData(pixels, torch.arange(20) % 4, ("a", "b", "c", "d"), "made", "train")


def test_channel_moments_are_those_of_all_pixels(colour):
    values = colour.pixels.numpy() / 255
    mean, sd = colour.channel_moments()
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)))
    np.testing.assert_allclose(sd, values.std((0, 2, 3)))


def test_normalised_images_have_mean_0_and_sd_1_and_say_so(colour):
    normal = colour.normalised(*colour.channel_moments())
    np.testing.assert_allclose(normal.images.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(normal.images.std((0, 2, 3), correction=0), 1, rtol=1e-5)
    assert normal.scaling.startswith("(pixel / 255 - mean) / sd, mean (0.")
    assert normal.pixels is colour.pixels


def test_normalisation_that_fits_no_channel_is_refused(colour):
    with pytest.raises(DataError, match="for each of the 3 channels, but there are mean"):
        colour.normalised((0.5,), (0.2,))


def test_batches_of_bytes_are_those_of_the_tensors(colour):
    stored, whole = (
        list(as_batches(data, batch_size=6, generator=torch.Generator().manual_seed(1)))
        for data in (colour, colour.tensors)
    )
    for one, other in zip(stored, whole, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[0].dtype == torch.float32


def test_numbered_batches_are_prepared_and_not_augmented(colour):
    batches = replace(as_batches(colour, batch_size=6), augment=torch.zeros_like)
    assert torch.equal(next(numbered_batches(batches, 1))[0], colour.images[6:12])
    assert not next(iter(batches))[0].any()


def test_augmentation_comes_before_the_scaling(colour):
    normal = colour.normalised((0.5,) * 3, (0.25,) * 3)
    batches = replace(as_batches(normal, batch_size=20), augment=torch.zeros_like)
    assert next(iter(batches))[0].unique().tolist() == [-2.0]  # a black border is the pixel 0


def test_scaling_leaves_floating_point_images_undivided():
    x = torch.rand(2, 1, 3, 3)
    assert torch.equal(Scaling()(x), x)


def test_fit_of_bytes_is_the_fit_of_their_tensors():
    digits = wiu.datasets.load("digits").first(200)
    fits = []
    for data in (digits, digits.tensors):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        model = wiu.nn.BayesianNetwork(net)
        fits.append(wiu.fit(model, wiu.guides.AutoDiagonalLaplace(model), data, epochs=2))
    assert fits[0].losses.tolist() == fits[1].losses.tolist()
    assert torch.equal(fits[0].guide.blocks[0].precision.variance(), fits[1].guide.blocks[0].precision.variance())


def test_training_sees_changed_images_and_the_curvature_none():
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.out = torch.nn.Linear(64, 10)

        def forward(self, x):
            seen.append((self.training, bool((x < 0).any())))
            return self.out(x.flatten(1))

    digits = wiu.datasets.load("digits").first(100)
    model = wiu.nn.BayesianNetwork(Watching())
    wiu.fit(
        model,
        wiu.guides.AutoDiagonalLaplace(model),
        digits,
        epochs=1,
        batch_size=50,
        augment=lambda images: images.float() - 3,
    )
    assert {changed for training, changed in seen if training} == {True}
    assert seen[-1] == (False, False)  # the curvature's pass


class Interrupted(Exception):
    """What stops a training in a test."""


@dataclass(frozen=True)
class Shifting:
    """`FlipAndCrop` that fails after so many batches; its repr is the same throughout."""

    left: list[int] = field(repr=False)

    def __call__(self, images):
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Interrupted
        return FlipAndCrop(padding=1, flip=False)(images)


def test_augmented_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path):
    digits = wiu.datasets.load("digits").first(120)

    def trained(num_batches, **options):
        torch.manual_seed(0)
        model = wiu.nn.BayesianNetwork(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
        guide = wiu.guides.AutoMeanField(model)
        return wiu.fit(model, guide, digits, epochs=4, batch_size=40, augment=Shifting([num_batches]), **options)

    with pytest.raises(Interrupted):
        trained(8, checkpoint=tmp_path / "fit")
    again = trained(99, checkpoint=tmp_path / "fit")
    assert again.losses.tolist() == trained(99).losses.tolist()
