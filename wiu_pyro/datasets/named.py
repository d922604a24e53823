"""The data sets known by name: scikit-learn's digits, torchvision's MNIST family and CIFAR-10, copies as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wiu_pyro.datasets.folder import load_folder
from wiu_pyro.datasets.image_data import ImageData, Scaling, from_bytes
from wiu_pyro.errors import DataError

__all__ = ["NAMED", "Named", "digits", "has_files", "read"]

DIGITS_TEST_IMAGES = 360
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR_FILES = {"train": tuple(f"data_batch_{part}" for part in range(1, 6)), "test": ("test_batch",)}
CIFAR_TAR = "cifar10-jpg.tar"  # train/<class>/NNNN.jpg and test/<class>/NNNN.jpg
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))


@dataclass(frozen=True)
class Named:
    """A data set known by name.

    Attributes
    ----------
    folder : str
        Its folder inside the data root; empty where it comes with a package.
    files : mapping of str to tuple of str
        The files of each split, inside `folder`.
    class_names : tuple of str
        Name of each class, in the order of the labels.
    torchvision_class : str
        The torchvision data set that fetches and reads it; empty where there is none.
    about : str
        One line for a list.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    class_names: tuple[str, ...]
    torchvision_class: str
    about: str


DIGIT_NAMES = tuple("0123456789")
NAMED: dict[str, Named] = {
    "digits": Named("", {"train": (), "test": ()}, DIGIT_NAMES, "", "1,437 + 360 digits, 8 x 8, with scikit-learn"),
    "mnist": Named("MNIST/raw", IDX_FILES, DIGIT_NAMES, "MNIST", "60,000 + 10,000 handwritten digits, 28 x 28"),
    "fashion-mnist": Named(
        "FashionMNIST/raw", IDX_FILES, FASHION_CLASSES, "FashionMNIST", "60,000 + 10,000 pieces of clothing, 28 x 28"
    ),
    "kmnist": Named(
        "KMNIST/raw",
        IDX_FILES,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        "KMNIST",
        "60,000 + 10,000 cursive kana, 28 x 28",
    ),
    "cifar10": Named(
        "cifar-10-batches-py", CIFAR_FILES, CIFAR_CLASSES, "CIFAR10", "50,000 + 10,000 colour photographs, 32 x 32"
    ),
    "cifar10-jpg": Named(
        "CIFAR10",
        {"train": (CIFAR_TAR,), "test": (CIFAR_TAR,)},
        CIFAR_CLASSES,
        "",
        "CIFAR-10 as JPEG files in a tar: 50,000 + 10,000 images that have lost a little",
    ),
    "notmnist": Named(
        "notMNIST/raw", {"test": IDX_FILES["test"]}, tuple("ABCDEFGHIJ"), "", "letters A to J, 28 x 28, test split only"
    ),
}


def digits(split: str) -> ImageData:
    """Return scikit-learn's digits, always split the same way: 1,437 train and 360 test images, stratified.

    Parameters
    ----------
    split : str
        ``"train"`` or ``"test"``.

    Returns
    -------
    ImageData
        Images of 8 x 8: the stored values go from 0 to 16, so the scaling is ``"pixel / 16"``.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=DIGITS_TEST_IMAGES, stratify=bunch.target, random_state=1
    )
    chosen = train if split == "train" else test
    pixels = torch.from_numpy(bunch.images[chosen]).to(torch.uint8).unsqueeze(1)  # (num_images, 1, 8, 8)
    labels = torch.from_numpy(bunch.target[chosen]).to(torch.int64)
    return ImageData(pixels, labels, DIGIT_NAMES, "digits", split, prepare=Scaling(divisor=16.0))


def has_files(name: str, split: str, root: Path) -> bool:
    """Return whether `root` holds the files of one split (always true for digits)."""
    known = NAMED[name]
    return split in known.files and all((root / known.folder / file).is_file() for file in known.files[split])


def read(name: str, split: str, root: Path) -> ImageData:
    """Read one split from files that are there.

    Parameters
    ----------
    name : str
        A key of `NAMED`.
    split : str
        ``"train"`` or ``"test"``.
    root : Path
        The data root.

    Returns
    -------
    ImageData
        The whole split.

    Raises
    ------
    DataError
        If a file is damaged.
    """
    if name == "digits":
        return digits(split)
    known = NAMED[name]
    folder = root / known.folder
    if name == "cifar10-jpg":
        return replace(load_folder(folder / CIFAR_TAR, split), name=name)
    reader: Callable[[Path, tuple[str, ...]], tuple[Tensor, Tensor]]
    reader = _read_cifar if name == "cifar10" else _read_idx
    try:
        pixels, labels = reader(folder, known.files[split])
    except Exception as error:  # damaged files raise whatever the bytes lead to
        raise DataError(
            f"The files of '{name}' in {folder} cannot be read: {type(error).__name__}: {error}. "
            f"They are damaged; remove them and run: wiu data get {name}"
        ) from error
    return from_bytes(pixels, labels, known.class_names, name=name, split=split)


def _read_idx(folder: Path, files: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Read MNIST's own file format: images (num_images, height, width) and labels (num_images,)."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = files
    return read_image_file(str(folder / images)), read_label_file(str(folder / labels))


def _read_cifar(folder: Path, files: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Read CIFAR-10's batches through torchvision, which checks them against their md5 before it unpickles."""
    from torchvision.datasets import CIFAR10

    data = CIFAR10(str(folder.parent), train=len(files) > 1, download=False)
    return torch.from_numpy(data.data), torch.tensor(data.targets)  # (num_images, 32, 32, 3)
