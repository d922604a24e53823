"""Images read when they are asked for: the same as those read at once."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import wiu_pyro as wiu
from wiu_pyro import datasets
from wiu_pyro.datasets import ImageFiles
from wiu_pyro.errors import DataError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, num in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(num):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def tar(folder):
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname="images")
    return path


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_files_are_those_of_the_images_read_at_once(form, num_workers, request):
    path = request.getfixturevalue(form)
    whole = datasets.load(path, split="train")
    files = ImageFiles(path, split="train")
    assert (len(files), files.class_names) == (12, whole.class_names)
    batches = list(wiu.nn.as_batches(files.loader(batch_size=5, num_workers=num_workers)))
    assert torch.equal(torch.cat([batch[0] for batch in batches]), whole.images)
    assert torch.equal(torch.cat([batch[1] for batch in batches]), whole.labels)


def test_a_seed_decides_the_order_of_a_shuffled_loader(folder):
    files = ImageFiles(folder)
    orders = [torch.cat([y for _, y in files.loader(shuffle=True, num_workers=0, seed=seed)]) for seed in (1, 1, 2)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_images_of_several_sizes_are_brought_to_one_by_a_transform(folder):
    Image.fromarray(np.zeros((20, 11, 3), np.uint8)).save(folder / "train" / "cat" / "other.png")
    files = ImageFiles(folder, transform=v2.Compose([v2.Resize(8), v2.CenterCrop(8)]))
    assert torch.stack([image for image, _ in files]).shape == (13, 3, 8, 8)


def test_a_network_is_fitted_on_files_as_on_images_in_memory(folder):
    fits = []
    for data in (ImageFiles(folder).loader(batch_size=4, num_workers=0), datasets.load(folder)):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        model = wiu.nn.BayesianNetwork(net)
        fits.append(wiu.fit(model, wiu.guides.AutoDiagonalLaplace(model), data, epochs=0))
    variances = [fit.guide.blocks[0].precision.variance() for fit in fits]
    torch.testing.assert_close(*variances)


def test_a_compressed_tar_is_refused(tmp_path):
    path = tmp_path / "images.tar.gz"
    path.write_bytes(io.BytesIO().getvalue())
    with pytest.raises(DataError, match="must not be compressed"):
        ImageFiles(path)


def test_a_file_that_is_no_image_is_named(folder):
    broken = ImageFiles(folder)
    for file in (folder / "train" / "cat").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"'train/cat/\d+.png' in .* cannot be read as an image"):
        broken[broken.labels.tolist().index(0)]
