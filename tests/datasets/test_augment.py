"""Random changes of training images: each image its own, the same as torchvision's on that image."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from wiu_pyro.datasets import FlipAndCrop, PerImage
from wiu_pyro.errors import DataError


def places(image, changed, padding):
    """All (row, column, mirrored) by which torchvision's crop and flip make `changed` of `image`."""
    bordered = v2.functional.pad(image, [padding] * 4)
    found = []
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            cut = v2.functional.crop(bordered, row, column, *image.shape[1:])
            for mirrored, one in ((False, cut), (True, v2.functional.horizontal_flip(cut))):
                if torch.equal(one, changed):
                    found.append((row, column, mirrored))
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_one_that_torchvision_crops_and_flips(dtype):
    torch.manual_seed(0)
    images = torch.randint(1, 256, (40, 3, 9, 7)).to(dtype)
    changed = FlipAndCrop(padding=2)(images)
    assert (changed.dtype, changed.shape) == (dtype, images.shape)
    found = [places(image, one, 2) for image, one in zip(images, changed, strict=True)]
    assert all(len(one) == 1 for one in found)
    assert len({one[0] for one in found}) > 20  # of 50 that there are


def test_places_and_mirroring_are_uniform():
    torch.manual_seed(1)
    num = 4000
    images = torch.arange(1, 10).reshape(1, 1, 3, 3).expand(num, 1, 3, 3)
    found = [places(torch.arange(1, 10).reshape(1, 3, 3), one, 1)[0] for one in FlipAndCrop(padding=1)(images)]
    counts = np.unique(np.array(found), axis=0, return_counts=True)[1]
    assert len(counts) == 18
    sd = np.sqrt(num * (1 / 18) * (17 / 18))
    assert np.abs(counts - num / 18).max() < 4 * sd


def test_without_flip_and_padding_images_stay_as_they_are():
    images = torch.rand(5, 1, 4, 4)
    assert torch.equal(FlipAndCrop(padding=0, flip=False)(images), images)


def test_a_seed_decides_the_changes():
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    changes = []
    for _ in range(2):
        torch.manual_seed(3)
        changes.append(FlipAndCrop()(images))
    assert torch.equal(*changes)


def test_transforms_of_torchvision_draw_anew_for_each_image_of_a_batch():
    images = torch.rand(1, 1, 6, 6).expand(64, 1, 6, 6)
    changed = PerImage(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]))(images)
    assert len({tuple(one.flatten().tolist()) for one in changed}) == 4


@pytest.mark.parametrize("augment", [FlipAndCrop(), PerImage(v2.RandomHorizontalFlip())])
def test_what_is_no_batch_of_images_is_refused(augment):
    with pytest.raises(DataError, match=r"needed to be augmented, but these have the shape \(5, 64\)"):
        augment(torch.rand(5, 64))


def test_a_negative_border_is_refused():
    with pytest.raises(DataError, match="padding must be 0 or more pixels, but is -1"):
        FlipAndCrop(padding=-1)
