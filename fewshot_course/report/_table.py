"""Tables as people have them: what each column holds, and how it becomes numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KINDS = ("number", "yes/no", "category", "date")
MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-", "#n/a", "<na>"}
"""What a cell without a value holds, in small letters."""
TRUE, FALSE = {"true", "yes", "y", "t", "ja", "oui"}, {"false", "no", "n", "f", "nein", "non"}
DATES = ("ISO8601", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%b-%Y")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MOST_CATEGORIES = 40
MOSTLY = 0.9
"""Share of numbers from which a column is one of numbers, and its words are missing values."""
MAX_BYTES = 2_000_000_000
ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Column:
    """How one column of a table becomes numbers.

    Attributes:
        name: in the file.
        kind: one of :data:`KINDS`.
        values: of a category, in order; each becomes a feature of 0 and 1.
        comma: whether numbers have a decimal comma.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    comma: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        if self.kind == "category":
            return tuple(f"{self.name} = {value}" for value in self.values)
        return (self.name,)

    def encode(self, cells: pd.Series) -> np.ndarray:
        """Return ``(n, features)`` float64, NaN where a value is missing.

        A category that was not seen before, or is missing, is 0 everywhere.
        """
        if self.kind == "number":
            return numbers(cells, self.comma).to_numpy(np.float64)[:, None]
        words = as_words(cells)
        if self.kind == "yes/no":
            low = words.str.lower()
            values = np.select(
                [low.isin(TRUE | {"1"}), low.isin(FALSE | {"0"})], [1.0, 0.0], np.nan
            )
            return np.asarray(values)[:, None]
        if self.kind == "date":
            return days(words).to_numpy(np.float64)[:, None]
        return np.stack([(words == value).to_numpy(np.float64) for value in self.values], axis=1)

    def facts(self) -> dict[str, Any]:
        """Return what a model's file keeps."""
        return {
            "name": self.name, "kind": self.kind, "values": list(self.values), "comma": self.comma,
        }  # fmt: skip

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Column:
        """Return the column that a file tells of.

        Raises:
            ValueError: for anything but text and known kinds.
        """
        name, kind, values, comma = (facts[k] for k in ("name", "kind", "values", "comma"))
        words = isinstance(values, list) and all(isinstance(v, str) for v in [name, *values])
        if kind not in KINDS or not words or not isinstance(comma, bool):
            raise ValueError(f"a column {facts!r:.80} is not known")
        if (kind == "category") != bool(values):
            raise ValueError("values belong to a category, and it needs some")
        return cls(name, kind, tuple(values), comma)


def encode(frame: pd.DataFrame, columns: Sequence[Column]) -> np.ndarray:
    """Return the features of a table, found by name, ``(n, features)`` float64 with NaN.

    Raises:
        ValueError: for a column that is missing.
    """
    missing = [column.name for column in columns if column.name not in frame.columns]
    if missing:
        raise ValueError(
            f"X has no column {', '.join(map(repr, missing[:5]))}; the model was fitted on the "
            f"columns {', '.join(repr(c.name) for c in columns[:12])}."
        )
    return np.concatenate([column.encode(frame[column.name]) for column in columns], axis=1)


def as_words(cells: pd.Series) -> pd.Series:
    """Return cells as text without blanks around it; "" where a value is missing."""
    words = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
    return words.where(~words.str.lower().isin(MISSING), "")


def numbers(cells: pd.Series, comma: bool = False) -> pd.Series:
    """Return cells as numbers, NaN where there is none."""
    if pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_bool_dtype(cells.dtype):
        return cells.astype(np.float64)
    words = as_words(cells)
    if comma:
        words = words.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return pd.to_numeric(words.where(words != "", None), errors="coerce").astype(np.float64)


def days(words: pd.Series) -> pd.Series:
    """Return dates as days since 1970; NaN for what is no date in any of :data:`DATES`."""
    best = pd.Series(np.nan, index=words.index)
    dated = words.str.contains("[-/.:]", regex=True) & words.str.contains("[0-9]", regex=True)
    for form in DATES if dated.any() else ():
        try:
            found = pd.to_datetime(words.where(dated, None), format=form, errors="coerce", utc=True)
        except ValueError:  # a year that no date of pandas has
            continue
        values = (found - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
        if values.notna().sum() > best.notna().sum():
            best = values.astype(np.float64)
    return best


# ---------------------------------------------------------------------------- guessing


IDS = ("since it rises or falls with the rows", "since it looks like an id")
"""Reasons to leave a column out that might give the classes away."""


def guess(frame: pd.DataFrame, places: Sequence[str]) -> tuple[list[Column], list[str], list[str]]:
    """Say what each column holds, and tell what was assumed.

    Args:
        frame: cells as text.
        places: where each row stands, for the remarks.

    Returns:
        The columns to learn from, remarks, and the columns that were left out as ids.

    Raises:
        ValueError: for an infinite number.
    """
    columns: list[Column] = []
    remarks: list[str] = []
    left_out: dict[str, list[str]] = {}
    for name in frame.columns:
        words = as_words(frame[name])
        column, reason = _column(str(name), words, places, remarks)
        if column is None:
            left_out.setdefault(reason, []).append(repr(str(name)))
        else:
            columns.append(column)
    for kind in ("yes/no", "category", "date"):
        names = [repr(c.name) for c in columns if c.kind == kind]
        if names:
            remarks.append(f"Read as {kind}: {', '.join(names)}.")
    remarks += [f"Left out, {reason}: {', '.join(n)}." for reason, n in left_out.items()]
    gaps = [c.name for c in columns if (as_words(frame[c.name]) == "").any()]
    if gaps:
        remarks.append(
            f"Missing values in {', '.join(map(repr, gaps[:8]))}: a number becomes the "
            f"median of the examples that are learned from, and a feature says that it was missing."
        )
    ids = [name.strip("'") for reason in IDS for name in left_out.get(reason, [])]
    return columns, remarks, ids


def _column(
    name: str, words: pd.Series, places: Sequence[str], remarks: list[str]
) -> tuple[Column | None, str]:
    there = words[words != ""]
    if there.empty:
        return None, "without any value"
    for comma in (False, True):
        values = numbers(there, comma)
        if np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(numbers(words, comma)))[0])
            raise ValueError(
                f"{places[row]}, column {name!r} holds {words.iloc[row]}; numbers must be finite."
            )
        share = float(values.notna().mean())
        if share == 1 or (share >= MOSTLY and len(there) >= 10):
            if share < 1:
                odd = sorted(set(there[values.isna()]))
                remarks.append(
                    f"Column {name!r} holds numbers, and {', '.join(map(repr, odd[:4]))}, which "
                    f"was read as missing."
                )
            if comma:
                remarks.append(f"Column {name!r} was read with a decimal comma.")
            return _number(name, values, len(words), comma)
    low = set(there.str.lower())
    if len(low) == 2 and low & TRUE and low & FALSE:
        return Column(name, "yes/no"), ""
    if (days(there).notna()).mean() == 1:
        # A file that is sorted by time has nothing else in common with tomorrow's.
        found = days(there)
        if len(found) >= 6 and found.is_unique and _monotone(found):
            return None, IDS[0]
        return Column(name, "date"), ""
    values_of = there.unique()
    if len(values_of) <= min(MOST_CATEGORIES, max(2, len(there) // 2)):
        return Column(name, "category", tuple(sorted(map(str, values_of)))), ""
    return None, "since nearly every row has another word there (name it with --text if it is text)"


def _number(name: str, values: pd.Series, n: int, comma: bool) -> tuple[Column | None, str]:
    """Return the column, or why it is left out: what numbers the rows gives sorted classes away."""
    whole = bool((values.dropna() % 1 == 0).all())
    unique = values.nunique() / max(1, len(values))
    if len(values) >= 6 and whole and unique == 1 and _monotone(values):
        return None, IDS[0]
    if len(values) >= 20 and whole and unique > 0.95 and is_id(name):
        return None, IDS[1]
    return Column(name, "number", comma=comma), ""


def is_id(name: str) -> bool:
    """Say whether a column's name is one of an id."""
    low = name.lower().replace(" ", "_").replace("-", "_")
    words = ("id", "index", "nr", "no", "number", "row", "key", "uuid", "guid")
    ends = ("_id", "_nr", "_no", "_key", "_index", "_number")
    return low in words or low.endswith(ends) or low.startswith(("id_", "unnamed"))


def _monotone(values: pd.Series) -> bool:
    return bool(values.is_monotonic_increasing or values.is_monotonic_decreasing)


# ---------------------------------------------------------------------------- files


def ending(path: Path) -> str:
    """Return the ending that tells the format, that before ``.gz`` if there is one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return (
        suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    )


def read_frame(path: Path) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Read a table, cells as text.

    Returns:
        The table with column names without blanks around them, where each row stands, and
        remarks on what was assumed.

    Raises:
        ImportError: naming the package that the format needs.
        ValueError: for a damaged or empty file, or two columns of one name.
    """
    kind = ending(path)
    content = _unpacked(path)
    if kind in (".csv", ".tsv", ".txt"):
        frame, places, remarks = _read_text(content, path.name)
    else:
        frame, remarks = _read_other(content, kind, path.name), []
        places = [f"row {i + (2 if kind == '.xlsx' else 1)}" for i in range(len(frame))]
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        n = list(frame.columns).count(twice[0])
        raise ValueError(f"{path.name} has {n} columns named {twice[0]!r}.")
    if frame.empty:
        raise ValueError(f"{path.name} has no rows below the line with the column names.")
    return frame, places, remarks


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged or no .gz file ({error}).") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path.name} unpacks to more than {MAX_BYTES:,} bytes.")
    return content


def _read_other(content: bytes, kind: str, name: str) -> pd.DataFrame:
    engines = {".xlsx": "openpyxl", ".parquet": "pyarrow"}
    try:
        size = _announced(content, kind)
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size:,} bytes; at most {MAX_BYTES:,} are read")
        if kind == ".xlsx":
            frame = pd.read_excel(io.BytesIO(content), dtype=object, keep_default_na=False)
        elif kind == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            frame = pd.DataFrame(
                [json.loads(line) for line in content.splitlines() if line.strip()]
            )
    except ImportError:
        raise ImportError(
            f"{name} needs the package {engines[kind]}: pip install {engines[kind]}"
        ) from None
    except Exception as error:  # each engine raises its own kinds for a damaged file
        raise ValueError(f"{name} is damaged or no {kind} file ({error!s:.200}).") from None
    return frame.map(_word)


def _announced(content: bytes, kind: str) -> int:
    """Return the size to which a file says that it unpacks: a small one may fill the memory."""
    if kind == ".xlsx":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(member.file_size for member in archive.infolist())
    if kind == ".parquet":
        from pyarrow.parquet import ParquetFile

        facts = ParquetFile(io.BytesIO(content)).metadata
        return sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
    return len(content)


def _word(cell: Any) -> str:
    if isinstance(cell, list | tuple | dict | np.ndarray):
        return json.dumps(list(cell) if not isinstance(cell, dict) else cell, default=str)
    return "" if pd.isna(cell) else str(cell)


def _read_text(content: bytes, name: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    text, remarks = _decoded(content, name)
    if not text.strip():
        raise ValueError(f"{name} is empty.")
    separator = _separator(text)
    if separator != ",":
        remarks.append(f"The columns are separated by a {SEPARATORS[separator]}.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1  # a quoted text may span lines: a row is named by its first one
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}: the row that begins in line {start} is broken ({error})."
        ) from None
    header, rows, lines = rows[0], rows[1:], lines[1:]
    if rows and all(len(row) == len(header) + 1 for row in rows):
        header = ["row name", *header]  # R writes row names without a name above them
        remarks.append("The first column has no name; it is called 'row name' here.")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise ValueError(
                f"{name}: line {line} has {len(row)} columns, expected {len(header)}. "
                f"A text that holds the separator {separator!r} needs quotes around it."
            )
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    return frame, [f"line {line}" for line in lines], remarks


def _decoded(content: bytes, name: str) -> tuple[str, list[str]]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16"), ["The file is in UTF-16."]
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}. "
            f"Save it again as UTF-8 (a spreadsheet offers 'CSV UTF-8')."
        ) from None


def _separator(text: str) -> str:
    """Return the separator by which the first rows have the same number of columns, >= 2."""
    best, most = ",", 1
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text[:200_000], newline=""), delimiter=separator)
        widths = []
        try:
            for row, _ in zip(reader, range(30), strict=False):
                if any(row):
                    widths.append(len(row))
        except csv.Error:
            continue
        even = (
            len(set(widths[:-1] if len(widths) > 2 else widths)) <= 1 or len(set(widths[1:])) == 1
        )
        if widths and even and widths[0] > most:
            best, most = separator, widths[0]
    return best
