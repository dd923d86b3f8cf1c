"""Texts with labels: three public data sets, and a CSV file of your own."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course.data._files import DataFile, read
from fewshot_course.data._types import Dataset, DatasetInfo, Loaded

__all__ = ["load_csv"]

_SST2_ADDRESS = (
    "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/"
    "457ffd83de90a9d6d472d8ffc31bbffe40a8b236/data/SST2/"
)
_SST2_HASHES = {
    "train": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    "dev": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    "test": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
}
SST2 = tuple(
    DataFile(f"sst2/{part}.tsv", sha256, f"{_SST2_ADDRESS}{part}.tsv")
    for part, sha256 in _SST2_HASHES.items()
)
_BANKING_ADDRESS = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
    "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/"
)
_BANKING_HASHES = {
    "train": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "test": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}
BANKING77 = tuple(
    DataFile(f"banking77/{part}.csv", sha256, f"{_BANKING_ADDRESS}{part}.csv")
    for part, sha256 in _BANKING_HASHES.items()
)

# The archive's hash is the one that several other public loaders of this file check too.
IMDB = DataFile(
    path="imdb/aclImdb_v1.tar.gz",
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    address="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
)


def load_sst2(split: str) -> Loaded:
    """Return the sentences; "all" is training, validation and test part in this order."""
    files = dict(zip(("train", "validation", "test"), SST2, strict=True))
    wanted = list(files.values()) if split == "all" else [files[split]]
    rows = [
        line.rsplit("\t", 1) for file in wanted for line in read(file).decode("utf-8").splitlines()
    ]
    labels = np.array([int(label) for _, label in rows], dtype=np.int64)
    return Loaded([text for text, _ in rows], labels, ("negative", "positive"))


def load_banking77(split: str) -> Loaded:
    """Return the queries; "all" is the training part followed by the test part."""
    files = dict(zip(("train", "test"), BANKING77, strict=True))
    wanted = list(files.values()) if split == "all" else [files[split]]
    texts: list[str] = []
    labels: list[str] = []
    for file in wanted:
        for _, text, label in _rows(read(file), file.path, "text", "category"):
            texts.append(text)
            labels.append(label)
    names, y = np.unique(labels, return_inverse=True)  # both parts hold all 77 intents
    return Loaded(texts, y.astype(np.int64), tuple(names.tolist()))


def load_imdb(split: str) -> Loaded:
    """Return the reviews, sorted by name within part and class; "all" is training then test.

    The archive's 50,000 reviews without a label are left out, and its line breaks (``<br />``)
    become spaces.
    """
    classes = ("negative", "positive")
    parts = ("train", "test") if split == "all" else (split,)
    found: list[tuple[int, int, str, str]] = []
    with tarfile.open(fileobj=io.BytesIO(read(IMDB)), mode="r:gz") as archive:
        for member in archive:
            folders = member.name.removeprefix("./").split("/")
            if len(folders) != 4 or folders[1] not in parts or folders[2] not in ("neg", "pos"):
                continue
            stream = archive.extractfile(member)
            if stream is None:
                continue
            text = " ".join(stream.read().decode("utf-8").replace("<br />", " ").split())
            label = ("neg", "pos").index(folders[2])
            found.append((parts.index(folders[1]), label, folders[3], text))
    found.sort(key=lambda row: row[:3])
    y = np.array([label for _, label, _, _ in found], dtype=np.int64)
    return Loaded([text for *_, text in found], y, classes)


@checked
def load_csv(path: str | Path) -> Dataset:
    """Load your own labelled texts from a CSV file.

    The first line must name the columns ``text`` and ``label``; other columns are ignored.
    Labels are any words; classes are numbered in alphabetical order, or in numerical order if
    all labels are whole numbers.

    Args:
        path: a CSV file in UTF-8, with commas, and quotes around texts that hold a comma.

    Returns:
        A data set named after the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not UTF-8 or lacks a column, or for bad rows: each is named
            by its line number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is no file.")
    texts: list[str] = []
    labels: list[str] = []
    bad: list[str] = []
    for line, text, label in _rows(path.read_bytes(), path.name, "text", "label"):
        if not text or not label:
            bad.append(f"line {line} has no {'label' if text else 'text'}")
        texts.append(text)
        labels.append(label)
    if bad:
        more = f", and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(f"{path.name}: {', '.join(bad[:5])}{more}.")
    if not texts:
        raise ValueError(f"{path.name} has no rows below the line with the column names.")
    names = sorted(set(labels), key=_label_order(labels))
    number = {name: index for index, name in enumerate(names)}
    info = DatasetInfo(
        name=path.stem,
        title=path.name,
        kind="text",
        n=len(texts),
        shape=(),
        n_classes=len(names),
        licence="yours",
        source=str(path),
        address="",
        needs_download=False,
    )
    y = np.array([number[label] for label in labels], dtype=np.int64)
    return Dataset(path.stem, texts, y, tuple(names), info)


def _label_order(labels: list[str]) -> Callable[[str], Any]:
    """Return the sort key of labels: by number if all are whole numbers, else as words."""
    try:
        for label in labels:
            int(label)
    except ValueError:
        return str
    return int


def table_rows(content: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row, that of the column names first.

    Blank lines are left out, and spaces around column names.

    Raises:
        ValueError: naming the file and, where there is one, the line.
    """
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}. "
            f"Save it again as UTF-8 (a spreadsheet offers 'CSV UTF-8')."
        ) from None
    reader = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    width = 0
    start = 1  # a quoted text may span lines: a row is named by its first one
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(
                f"{name}: the row that begins in line {start} is broken ({error})."
            ) from None
        if row and not width:
            width = len(row)
            yield start, [column.strip() for column in row]
        elif row:
            if len(row) != width:
                raise ValueError(
                    f"{name}: line {start} has {len(row)} columns, expected {width}. "
                    f"A text that holds a comma needs quotes around it."
                )
            yield start, row
        start = reader.line_num + 1
    if not width:
        raise ValueError(f"{name} is empty.")


def _rows(
    content: bytes, name: str, text_column: str, label_column: str
) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, text, label) of each row, blank lines left out.

    Raises:
        ValueError: naming the file and, where there is one, the line.
    """
    rows = table_rows(content, name)
    start, header = next(rows)
    columns = {column: index for index, column in enumerate(header)}
    if not {text_column, label_column} <= set(columns):
        raise ValueError(
            f"{name} must begin with a line that names the columns {text_column!r} and "
            f"{label_column!r}; line {start} holds {', '.join(map(repr, header[:5]))}."
        )
    for line, row in rows:
        yield line, row[columns[text_column]].strip(), row[columns[label_column]].strip()
