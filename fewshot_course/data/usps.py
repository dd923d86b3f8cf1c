"""USPS: digits from addresses on US mail, in the form of *The Elements of Statistical Learning*."""

from __future__ import annotations

import hashlib

import numpy as np

from fewshot_course.data._files import DataError, DataFile, read
from fewshot_course.data._types import Loaded
from fewshot_course.data.digits import DIGIT_NAMES

SIDE = 16


def parse_lines(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and pixels of a file with a line a digit.

    A line holds the label and 256 grey values in [-1, 1], row by row.

    Args:
        content: the text, unpacked.
        name: of the file, for messages.

    Returns:
        Labels ``(n,)`` int64, and thousandths of grey values ``(n, 256)`` int16.

    Raises:
        DataError: if a line is no digit.
    """
    try:
        table = np.array([line.split() for line in content.decode("ascii").splitlines()], float)
    except ValueError as error:  # letters, or lines of different length
        raise DataError(f"{name} is no table of digits: {error}.") from None
    if table.ndim != 2 or table.shape[1] != 1 + SIDE**2:
        raise DataError(f"{name} has the shape {table.shape}, expected (n, {1 + SIDE**2}).")
    labels, pixels = table[:, 0], table[:, 1:]
    known = np.isin(labels, np.arange(10)).all() and (np.abs(pixels) <= 1).all()
    if not known:
        raise DataError(f"{name} holds labels outside 0 to 9, or grey values outside [-1, 1].")
    return labels.astype(np.int64), np.rint(1000 * pixels).astype(np.int16)


def hash_digits(content: bytes) -> str:
    """Return the SHA-256 of the numbers in a file, however they are written.

    It is taken over the labels as int64, then the thousandths of the grey values as int16, row
    by row, in little endian.

    Args:
        content: the file, unpacked.
    """
    try:
        labels, pixels = parse_lines(content, "the file")
    except DataError:  # then it is another file, whose hash says so
        return hashlib.sha256(content).hexdigest()
    numbers = labels.astype("<i8").tobytes() + pixels.astype("<i2").tobytes()
    return hashlib.sha256(numbers).hexdigest()


_ADDRESS = "https://hastie.su.domains/ElemStatLearn/datasets/"
USPS = {
    "train": DataFile(
        "usps/zip.train.gz",
        "d6119ff3756119ce7a40cce45afded3774e13735d431e04d8dee8de2000fbf6e",
        _ADDRESS + "zip.train.gz",
        digest=hash_digits,
    ),
    "test": DataFile(
        "usps/zip.test.gz",
        "ac5019a436b906054e20f5f6c3fbb09edbc73325d20dc9ea0f8f021fe73bb11a",
        _ADDRESS + "zip.test.gz",
        digest=hash_digits,
    ),
}


def load_usps(split: str) -> Loaded:
    """Return USPS; "all" is the training part followed by the test part."""
    files = list(USPS.values()) if split == "all" else [USPS[split]]
    parts = [parse_lines(read(file), file.path) for file in files]
    pixels = np.concatenate([pixels for _, pixels in parts]).reshape(-1, SIDE, SIDE)
    X = (pixels.astype(np.float32) + 1000) / 2000
    return Loaded(X, np.concatenate([labels for labels, _ in parts]), DIGIT_NAMES)
