"""Data sets known by name: what they hold, where they are looked for, what is said when they are not there."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from wiu_pyro import datasets
from wiu_pyro.datasets import named, places
from wiu_pyro.errors import DataError


def write_idx(path, array):
    """Write MNIST's own file format: magic number, sizes as big-endian int32, bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def small_mnist(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_digits_are_all_of_scikit_learns_digits_once():
    train, test = datasets.load("digits"), datasets.load("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    both = torch.cat([train.images, test.images]).numpy().reshape(-1, 64) * 16
    expected = load_digits().data
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, expected.tolist()))


def test_digits_split_is_stratified():
    test = datasets.load("digits", split="test")
    shares = np.bincount(load_digits().target) / 1797 * 360
    assert np.abs(np.bincount(test.labels.numpy()) - shares).max() < 1


def test_digits_split_is_always_the_same():
    first, second = datasets.load("digits"), datasets.load("digits")
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_digits_have_three_dead_pixels():
    images = datasets.load("digits").images.flatten(1)
    assert (images.amax(0) == 0).nonzero().flatten().tolist() == [0, 32, 39]


def test_image_data_says_its_shape_and_scaling():
    digits = datasets.load("digits", split="test")
    assert (digits.num_classes, digits.in_channels, digits.image_size) == (10, 1, (8, 8))
    assert digits.scaling == "pixel / 16"
    assert (digits.images.dtype, digits.labels.dtype) == (torch.float32, torch.int64)
    x, y = digits.tensors
    assert torch.equal(x, digits.images)
    assert y is digits.labels


def test_mnist_files_are_read_as_pixel_over_255(small_mnist):
    data = datasets.load("mnist", root=small_mnist, split="test", download=False)
    raw = (small_mnist / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
    expected = np.frombuffer(raw, np.uint8).reshape(20, 1, 28, 28) / 255
    np.testing.assert_allclose(data.images.numpy(), expected, rtol=1e-6)
    assert data.labels.tolist() == [*range(10), *range(10)]
    assert data.scaling == "pixel / 255"


def test_data_root_is_the_argument_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WIU_DATA", str(tmp_path / "variable"))
    assert datasets.data_root(tmp_path / "given") == tmp_path / "given"
    assert datasets.data_root() == tmp_path / "variable"
    monkeypatch.delenv("WIU_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.data_root() == tmp_path / "wiu_pyro"


def test_files_present_are_used_without_a_download(small_mnist, monkeypatch):
    monkeypatch.setattr(places, "_download", lambda *_: pytest.fail("downloaded"))
    assert len(datasets.load("MNIST", root=small_mnist)) == 30
    assert datasets.fetch("mnist", small_mnist) == str(small_mnist / "MNIST/raw")


def test_available_says_where_each_was_found(small_mnist):
    found = {data.name: data for data in datasets.available(small_mnist)}
    assert found["digits"].where == "scikit-learn"
    assert found["mnist"].where == str(small_mnist / "MNIST/raw")
    assert found["mnist"].splits == ("train", "test")
    assert (found["kmnist"].where, found["kmnist"].splits) == ("", ())
    assert not found["notmnist"].can_fetch


def test_fetch_moves_a_whole_download_into_place(tmp_path, small_mnist, monkeypatch):
    def download(torchvision_class, folder):
        (small_mnist / "MNIST").rename(f"{folder}/{torchvision_class}")

    monkeypatch.setattr(places, "_download", download)
    root = tmp_path / "new" / "root"
    assert datasets.fetch("mnist", root) == str(root / "MNIST/raw")
    assert len(datasets.load("mnist", root=root, download=False)) == 30
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_failed_download_says_where_it_looked_and_leaves_nothing(tmp_path, monkeypatch):
    def download(torchvision_class, folder):
        (places.Path(folder) / "half").write_text("written")
        raise RuntimeError("Error downloading train-images:\nno network")

    monkeypatch.setattr(places, "_download", download)
    with pytest.raises(DataError, match=r"'mnist' is needed in .*raw.*no network.*wiu data get mnist.*WIU_DATA"):
        datasets.load("mnist", root=tmp_path / "new" / "root")
    assert list(tmp_path.iterdir()) == []


def test_absent_data_without_download_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="is not there. Run: wiu data get cifar10"):
        datasets.load("cifar10", root=tmp_path, download=False)


def test_absent_notmnist_says_which_files_to_put_where(tmp_path):
    with pytest.raises(DataError, match=r"cannot be downloaded. Put its files \(t10k-images-idx3-ubyte, .*notMNIST"):
        datasets.load("notmnist", split="test", root=tmp_path)


def test_notmnist_has_no_train_split(tmp_path):
    with pytest.raises(DataError, match="test split only"):
        datasets.load("notmnist", root=tmp_path)


@pytest.mark.parametrize(("name", "near"), [("mnst", "mnist"), ("cifar-10", "cifar10"), ("digit", "digits")])
def test_unknown_name_gets_the_near_match(name, near):
    with pytest.raises(DataError, match=f"Did you mean '{near}'"):
        datasets.load(name)


def test_unknown_split_is_refused():
    with pytest.raises(DataError, match="'train' or 'test' is needed, but it is 'valid'"):
        datasets.load("digits", split="valid")


def test_damaged_file_is_named_with_the_way_out(small_mnist):
    path = small_mnist / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read.*damaged; remove them and run: wiu data get mnist"):
        datasets.load("mnist", root=small_mnist, split="test")


def test_labels_out_of_range_are_refused(small_mnist):
    write_idx(small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte", np.full(20, 11))
    with pytest.raises(DataError, match="Labels from 0 to 9 are needed; .* labels from 11 to 11"):
        datasets.load("mnist", root=small_mnist, split="test")


def test_more_images_than_labels_are_refused(small_mnist):
    write_idx(small_mnist / "MNIST/raw/t10k-labels-idx1-ubyte", np.zeros(19))
    with pytest.raises(DataError, match="20 images and 19 labels"):
        datasets.load("mnist", root=small_mnist, split="test")


def test_every_name_has_its_classes_and_one_line_about_it():
    assert {name: len(known.class_names) for name, known in named.NAMED.items()} == dict.fromkeys(named.NAMED, 10)
    assert all(known.about for known in named.NAMED.values())


@pytest.mark.needs_data("MNIST")
@pytest.mark.slow
def test_real_mnist_has_its_known_counts(data_root):
    train = datasets.load("mnist", root=data_root, download=False)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (float(train.images.min()), float(train.images.max())) == (0.0, 1.0)
    assert float(train.images.mean()) == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.needs_data("notMNIST")
def test_real_notmnist_has_ten_thousand_letters(data_root):
    letters = datasets.load("notmnist", split="test", root=data_root)
    assert letters.images.shape == (10_000, 1, 28, 28)
    assert letters.class_names == tuple("ABCDEFGHIJ")
