"""Image folders and tars of them: read alike, and every way one can be wrong is named."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from wiu_pyro import datasets
from wiu_pyro.errors import DataError

RNG = np.random.default_rng(0)


def save(path, shape=(6, 5), mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return array


@pytest.fixture
def folder(tmp_path):
    """Two classes, two training images and one test image each; grey, 6 high and 5 wide."""
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        for file in ("train/{}/a.png", "train/{}/b.png", "test/{}/a.png"):
            save(root / file.format(name))
    return root


def pack(folder, path, mode="w", prefix=""):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, arcname=prefix or ".")
    return path


def test_folder_is_read_with_its_pixels_and_classes(folder):
    array = save(folder / "train/dog/a.png")
    train = datasets.load(folder)
    assert train.class_names == ("cat", "dog")
    assert sorted(train.labels.tolist()) == [0, 0, 1, 1]
    assert train.image_size == (6, 5)
    assert (train.name, train.split, train.scaling) == ("images", "train", "pixel / 255")
    dogs = train.images[train.labels == 1, 0].numpy()
    assert np.isclose(dogs, array / 255, rtol=1e-6).all(axis=(1, 2)).sum() == 1


def test_first_images_are_of_all_classes_and_new_ones_leave_the_order(tmp_path):
    for name in ("cat", "dog", "emu", "fox"):
        for number in range(30):
            save(tmp_path / f"train/{name}/{number}.png")
            save(tmp_path / f"test/{name}/{number}.png")
    before = datasets.load(tmp_path).labels.tolist()
    assert {before[:15].count(label) for label in range(4)} <= set(range(1, 9))
    save(tmp_path / "train/dog/new.png")
    after = datasets.load(tmp_path).labels.tolist()
    assert any(after[:place] + after[place + 1 :] == before for place, label in enumerate(after) if label == 1)


def test_colour_images_have_three_channels(tmp_path):
    arrays = {s: save(tmp_path / s / "x/a.png", (4, 4, 3)) for s in ("train", "test")}
    data = datasets.load(tmp_path, split="test")
    assert data.in_channels == 3
    np.testing.assert_allclose(data.images[0].numpy(), np.moveaxis(arrays["test"], 2, 0) / 255, rtol=1e-6)


@pytest.mark.parametrize(("name", "mode"), [("i.tar", "w"), ("i.tar.gz", "w:gz"), ("i.tgz", "w:gz")])
@pytest.mark.parametrize("prefix", ["", "some/where"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_tar_is_read_like_the_folder(folder, tmp_path, name, mode, prefix, split):
    direct = datasets.load(folder, split=split)
    packed = datasets.load(pack(folder, tmp_path / name, mode, prefix), split=split)
    assert (packed.images == direct.images).all()
    assert (packed.labels == direct.labels).all()
    assert packed.class_names == direct.class_names


def test_tar_writes_nothing_whatever_its_paths(folder, tmp_path):
    path = pack(folder, tmp_path / "i.tar")
    with tarfile.open(path, "a") as archive:
        for name in ("../../train/cat/evil.png", "/train/cat/evil.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="holds several"):
        datasets.load(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_links_in_a_tar_are_not_followed(folder, tmp_path):
    path = pack(folder, tmp_path / "i.tar")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("./train/cat/link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    assert len(datasets.load(path)) == 4


def test_hidden_files_and_other_files_are_left_out(folder):
    (folder / "train/cat/.a.png").write_text("not an image")
    (folder / "train/cat/notes.txt").write_text("not an image")
    (folder / "train/.ipynb_checkpoints").mkdir()
    assert len(datasets.load(folder)) == 4


def test_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is nothing at .*nowhere"):
        datasets.load(tmp_path / "nowhere")


@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_without_classes_is_refused(folder, split):
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=f"has no class folder in '{split}'"):
        datasets.load(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_class_without_images_is_named(folder, tmp_path, packed):
    (folder / "test/dog/a.png").unlink()
    with pytest.raises(DataError, match="'test/dog' in .* has none"):
        datasets.load(pack(folder, tmp_path / "i.tar") if packed else folder)


def test_other_classes_in_test_are_named(folder):
    (folder / "test/dog").rename(folder / "test/wolf")
    with pytest.raises(DataError, match="only in train: 'dog'; only in test: 'wolf'"):
        datasets.load(folder)


def test_ragged_sizes_name_two_files(folder):
    save(folder / "train/dog/b.png", (7, 5))
    with pytest.raises(DataError, match="'train/.../..png' has 5 x 6 and 'train/dog/b.png' has 5 x 7"):
        datasets.load(folder)


def test_mixed_channels_name_two_files(folder):
    save(folder / "train/dog/b.png", (6, 5, 3))
    with pytest.raises(DataError, match="'train/.../..png' has 1 and 'train/dog/b.png' has 3 channels"):
        datasets.load(folder)


@pytest.mark.parametrize("content", [b"", b"not an image"])
@pytest.mark.parametrize("packed", [False, True])
def test_unreadable_image_is_named(folder, tmp_path, packed, content):
    (folder / "train/dog/b.png").write_bytes(content)
    with pytest.raises(DataError, match=r"train/dog/b.png' in .* cannot be read as an image"):
        datasets.load(pack(folder, tmp_path / "i.tar") if packed else folder)


def test_truncated_image_is_named(folder):
    path = folder / "train/dog/b.png"
    save(path, (40, 40))
    path.write_bytes(path.read_bytes()[:-200])
    for other in ("train/cat/a.png", "train/cat/b.png", "train/dog/a.png"):
        save(folder / other, (40, 40))
    with pytest.raises(DataError, match="train/dog/b.png' in .* cannot be read as an image"):
        datasets.load(folder)


def test_transparent_pixels_are_refused_and_opaque_alpha_is_dropped(folder):
    opaque = np.dstack([RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8), np.full((6, 5), 255, np.uint8)])
    for file in folder.rglob("*.png"):
        Image.fromarray(opaque).save(file)
    assert datasets.load(folder).in_channels == 3
    opaque[0, 0, 3] = 10
    Image.fromarray(opaque).save(folder / "train/dog/b.png")
    with pytest.raises(DataError, match="train/dog/b.png' in .* has transparent pixels"):
        datasets.load(folder)


def test_sixteen_bit_image_is_refused(folder):
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "train/cat/a.png")
    with pytest.raises(DataError, match="8 bits a channel are needed; 'train/cat/a.png'"):
        datasets.load(folder)


@pytest.mark.parametrize(("name", "mode"), [("i.tar", "w"), ("i.tar.gz", "w:gz")])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.5])
def test_truncated_or_foreign_tar_is_named(tmp_path, folder, name, mode, kept):
    for file in folder.rglob("*.png"):
        save(file, (40, 40))
    path = pack(folder, tmp_path / name, mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))] or b"no tar")
    with pytest.raises(DataError, match="i.tar.* cannot be read as one"):
        datasets.load(path)


@pytest.mark.needs_data("CIFAR10/cifar10-jpg.tar")
@pytest.mark.slow
def test_real_cifar10_tar_has_its_known_counts(data_root):
    test = datasets.load(data_root / "CIFAR10/cifar10-jpg.tar", split="test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [1000] * 10
