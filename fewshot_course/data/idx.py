"""MNIST and Fashion-MNIST: two data sets in the IDX format."""

from __future__ import annotations

import struct

import numpy as np

from fewshot_course.data._files import DataError, DataFile, read
from fewshot_course.data._types import Loaded
from fewshot_course.data.digits import DIGIT_NAMES

_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _files(folder: str, address: str, hashes: tuple[str, ...]) -> tuple[DataFile, ...]:
    return tuple(
        DataFile(f"{folder}/{name}", sha256, address + name)
        for name, sha256 in zip(_NAMES, hashes, strict=True)
    )


MNIST = _files(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
# Hashes of the files in Debian's package dataset-fashion-mnist 0.0~git20200523.55506a9-1.
FASHION_MNIST = _files(
    "fashion_mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_mnist(split: str) -> Loaded:
    """Return MNIST; "all" is the training part followed by the test part."""
    return _load(MNIST, split, DIGIT_NAMES)


def load_fashion_mnist(split: str) -> Loaded:
    """Return Fashion-MNIST; "all" is the training part followed by the test part."""
    return _load(FASHION_MNIST, split, FASHION_NAMES)


def _load(files: tuple[DataFile, ...], split: str, class_names: tuple[str, ...]) -> Loaded:
    wanted = {"train": files[:2], "test": files[2:], "all": files}[split]
    arrays = [parse_idx(read(file), file.path) for file in wanted]
    X = np.concatenate(arrays[0::2]).astype(np.float32)
    X /= np.float32(255)
    return Loaded(X, np.concatenate(arrays[1::2]).astype(np.int64), class_names)


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """Return the bytes of an IDX file in the shape that its head tells.

    The head is two zero bytes, the type (8: unsigned bytes), the number of dimensions, and
    their sizes as big-endian 32-bit numbers.

    Raises:
        DataError: if the content is no IDX file of unsigned bytes.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is no IDX file of unsigned bytes.")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
