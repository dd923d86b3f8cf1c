"""USPS: read by its numbers, however they are written, and refused where they are others."""

import gzip
import hashlib

import numpy as np
import pytest

from fewshot_course.data import DataError, load_dataset, usps
from fewshot_course.data._files import CACHE_VARIABLE, DATA_VARIABLE


def lines(labels, pixels, form="%.4f"):
    table = np.column_stack([labels, pixels])
    rows = (" ".join(form % value for value in row) for row in table)
    return ("\n".join(rows) + "\n").encode()


@pytest.fixture
def digits():
    rng = np.random.default_rng(0)
    return np.array([3, 0, 9]), rng.integers(-1000, 1001, size=(3, 256)) / 1000


def test_numbers_come_back_row_by_row(digits):
    labels, pixels = digits
    found, thousandths = usps.parse_lines(lines(labels, pixels), "x")
    assert found.tolist() == [3, 0, 9]
    np.testing.assert_array_equal(thousandths, np.rint(1000 * pixels))


def test_the_hash_is_that_of_the_numbers_and_not_of_their_form(digits):
    labels, pixels = digits
    numbers = labels.astype("<i8").tobytes() + np.rint(1000 * pixels).astype("<i2").tobytes()
    expected = hashlib.sha256(numbers).hexdigest()
    assert usps.hash_digits(lines(labels, pixels)) == expected
    assert usps.hash_digits(lines(labels, pixels, "%.3f").replace(b"\n", b" \r\n")) == expected
    pixels[0, 0] += 0.001 if pixels[0, 0] < 1 else -0.001
    assert usps.hash_digits(lines(labels, pixels)) != expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has the shape"),
        (b"1 0.5\n", "has the shape"),
        (b"1 0.5\n2\n", "no table of digits"),
        (b"one " + b"0 " * 256, "no table of digits"),
        (b"10 " + b"0 " * 256, "outside 0 to 9"),
        (b"1 " + b"nan " * 256, "outside"),
        (b"1 " + b"1.5 " * 256, "outside"),
        ("1 ½".encode(), "no table of digits"),
    ],
)
def test_what_is_no_digit_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        usps.parse_lines(content, "zip.train.gz")
    usps.hash_digits(content)  # another file's hash, not an error


def test_another_file_is_refused_by_its_hash(digits, tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "usps").mkdir()
    for part in ("train", "test"):
        (tmp_path / "usps" / f"zip.{part}.gz").write_bytes(gzip.compress(lines(*digits)))
    with pytest.raises(DataError, match=r"zip\.test\.gz is damaged or another file"):
        load_dataset("usps", "test")


def test_the_real_one_has_the_published_counts(needs):
    needs("usps")
    train, test = load_dataset("usps", "train"), load_dataset("usps", "test")
    counts = [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
    assert np.bincount(train.y).tolist() == counts
    assert np.bincount(test.y).tolist() == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    assert (train.X.min(), train.X.max()) == (0.0, 1.0)
    # The frame is filled: a digit's rows reach from the first to the last one.
    assert (train.X.max(axis=2)[:, [0, -1]] > 0.1).mean() > 0.8
