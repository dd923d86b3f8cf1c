"""Result lines: one JSON object a run, one run a line, in a file that survives a kill.

A line says what was run (experiment, method, framework, data, configuration, seed), what came
out (metrics and the number of test examples), and what it took (seconds, peak memory, versions,
device).  A run that failed has a line too, with its ``error``.

``config_hash`` holds the kind of device ("cuda", "mps") where it is not the CPU, and the number of
threads where it is not 1.  So lines of runs on one thread of a CPU keep the hash that they have
always had, and a run on a GPU or with more threads never finds one of them.

What a line names is looked up in the registry of experiments and nowhere else.
"""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import re
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._reading import parse_json, show
from fewshot_course.frameworks import FRAMEWORKS

__all__ = [
    "SCHEMA",
    "Result",
    "ResultWriter",
    "ResultsError",
    "append_result",
    "pack_answers",
    "place_answers",
    "read_results",
    "unpack_answers",
]

SCHEMA = 1
"""Version of the result line; a file of a later version is refused."""


class ResultsError(RuntimeError):
    """A results file cannot be read or written; the message says where and why."""


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        experiment: name of the experiment in the registry.
        method: name of the method within it.
        framework: "torch", "tensorflow", or "numpy" where neither is used.
        data: name of the data set (``source->target`` for adaptation).
        preset: name of the preset that the configuration started from.
        config: the settings that the method used, name → value.
        config_hash: hash of all that changes the result, but the seed; the kind of device counts
            where it is not the CPU, the number of threads where it is not 1.
        seed: number of the draw.
        metrics: name → finite number; the first one is the headline.  Empty for a failed run.
        n_test: number of test examples (or test tasks) behind the metrics.
        seconds: wall time of the run, without importing the framework.
        peak_mb: largest resident memory of the process during the run, in 10^6 bytes.
        versions: package → version.
        device: kind of what it ran on, such as "cpu" or "cuda".
        threads: CPU threads that the run was allowed.
        error: ``None``, or the type and message of the exception that ended the run.
        answers: which test items were answered right, as :func:`pack_answers` writes it; ``None``
            where the metrics are no shares of right answers.
        schema: version of the line.
        extra: fields that this version does not know; kept when the line is written again.
    """

    experiment: str
    method: str
    framework: str
    data: str
    preset: str
    config: dict[str, Any]
    config_hash: str
    seed: int
    metrics: dict[str, float]
    n_test: int
    seconds: float
    peak_mb: float
    versions: dict[str, str]
    device: str
    threads: int = 1
    error: str | None = None
    answers: str | None = None
    schema: int = SCHEMA
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ResultsError(f"Not a result line: {problem}.")

    @property
    def key(self) -> tuple[str, int]:
        """Hash of the configuration, and seed: two runs of one key give the same result."""
        return self.config_hash, self.seed

    def to_json(self) -> str:
        """Return the line, without its line break."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        for name in ("error", "answers"):
            if values[name] is None:
                del values[name]
        return json.dumps({**values, **self.extra}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Result:
        """Read a line.

        Raises:
            ResultsError: if it is no JSON object, lacks a field, has one of a wrong type, or a
                later schema.
        """
        try:
            values = parse_json(line)
        except ValueError as error:
            raise ResultsError(f"Not a result line: no JSON ({error}).") from None
        if not isinstance(values, dict):
            raise ResultsError(f"Not a result line: {line[:40]!r} is no JSON object.")
        schema = values.get("schema")
        if schema != SCHEMA:
            raise ResultsError(
                f"Not a result line: it has schema {show(schema)}, this version reads {SCHEMA}."
            )
        known = {f.name for f in fields(cls)} - {"extra"}
        missing = known - {"answers", "error", "threads"} - values.keys()
        if missing:
            raise ResultsError(f"Not a result line: {', '.join(sorted(missing))} missing.")
        extra = {name: value for name, value in values.items() if name not in known}
        return cls(**{name: values[name] for name in values.keys() & known}, extra=extra)


_KNOWN = {"framework": ("numpy", *FRAMEWORKS)}
"""Fields whose values come from a closed list."""


def _problems(result: Result) -> Iterator[str]:
    """Yield what is wrong with the values of ``result``."""
    yield from _wrong_texts(result)
    for name, low in (("seed", 0), ("n_test", 0), ("threads", 1), ("schema", 1)):
        value = getattr(result, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            yield f"{name} must be a whole number >= {low}, got {show(value)}"
    for name in ("seconds", "peak_mb"):
        if not _is_finite(getattr(result, name)) or getattr(result, name) < 0:
            yield f"{name} must be a finite number >= 0, got {show(getattr(result, name))}"
    for name in ("config", "metrics", "versions"):
        if not isinstance(getattr(result, name), Mapping):
            yield f"{name} must be a mapping, got {show(getattr(result, name))}"
            return
    for name, value in result.metrics.items():
        if not _is_finite(value):
            yield f"the metric {name!r} must be a finite number, got {show(value)}"
    if result.error is not None and not isinstance(result.error, str):
        yield f"error must be a text, got {show(result.error)}"
    if result.answers is not None:
        try:
            unpack_answers(result.answers)
        except ValueError as error:
            yield f"answers are damaged: {error}"
    if result.error is None and (not result.metrics or not result.n_test):
        yield "a run without an error must have metrics and n_test >= 1"


def _wrong_texts(result: Result) -> Iterator[str]:
    for name in ("experiment", "method", "framework", "data", "preset", "config_hash", "device"):
        value, known = getattr(result, name), _KNOWN.get(name)
        if not isinstance(value, str) or not value:
            yield f"{name} must be a text that is not empty, got {show(value)}"
        elif known and value not in known:
            yield f"{name} must be one of {', '.join(known)}, got {show(value)}"


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


# ---------------------------------------------------------------------------- answers

MOST_ITEMS = 10_000_000
"""Most test items that a line may tell of."""


@checked
def pack_answers(correct: Any) -> str:
    """Write down which items were answered right, a bit an item.

    Args:
        correct: ``(items,)``: 1 for right, 0 for wrong, NaN for an item that was not asked.

    Returns:
        The number of items, then base64 of the right ones, and, unless all were asked, of those
        that were, with colons between.

    Raises:
        ValueError: for another shape or other values.
    """
    values = np.asarray(correct, dtype=np.float64)
    asked = ~np.isnan(values)
    if values.ndim != 1 or not np.isin(values[asked], (0.0, 1.0)).all():
        raise ValueError("correct must have shape (items,) and hold 1, 0 or NaN.")
    parts = [str(len(values)), _to_base64(values == 1)]
    return ":".join(parts if asked.all() else [*parts, _to_base64(asked)])


@checked
def place_answers(right: np.ndarray, items: np.ndarray, n_items: int) -> np.ndarray:
    """Return the answers of one draw among all items that any draw may be scored on.

    Args:
        right: ``(m,)`` bool, whether each scored item was answered right.
        items: ``(m,)``, their numbers, each from 0 to ``n_items - 1`` and at most once.
        n_items: of all draws.

    Returns:
        ``(n_items,)`` float64: 1, 0, and NaN for an item that was not asked.
    """
    answers = np.full(n_items, np.nan)
    answers[items] = right.astype(np.float64)
    return answers


@checked
def unpack_answers(text: str) -> np.ndarray:
    """Return what :func:`pack_answers` has written down, ``(items,)`` float64 with NaN.

    Raises:
        ValueError: if the text is something else.
    """
    number, *parts = text.split(":")
    if not re.fullmatch("[0-9]{1,8}", number) or len(parts) not in (1, 2):
        raise ValueError("they must be a number of items and one or two parts")
    n = int(number)
    if n > MOST_ITEMS:
        raise ValueError(f"{n} items are too many")
    right, *rest = (_from_base64(part, n) for part in parts)
    asked = rest[0] if rest else np.ones(n, dtype=bool)
    if (right & ~asked).any():
        raise ValueError("an item is right that was not asked")
    return np.where(asked, right.astype(np.float64), np.nan)


def _to_base64(bits: np.ndarray) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def _from_base64(part: str, n: int) -> np.ndarray:
    content = base64.b64decode(part, validate=True)
    if len(content) != (n + 7) // 8:
        raise ValueError(f"{n} items need {(n + 7) // 8} bytes, got {len(content)}")
    return np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=n).astype(bool)


# ---------------------------------------------------------------------------- reading


@checked
def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """Read a results file, one result a key: the last one that worked, else the last error.

    An incomplete last line (the disk was full, or the power failed, while it was written) is
    left out with a warning.

    Raises:
        ResultsError: if the file is missing or unreadable, or a complete line is damaged; the
            message names the line.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[list[Result], bool]:
    """Return the results, and whether an incomplete last line was left out."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ResultsError(f"Cannot read results from {path}: {error.strerror or error}.") from None
    lines = text.split("\n")
    found: list[Result] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(Result.from_json(line))
        except ResultsError as error:
            if number == len(lines) and not _is_json(line):  # it was being written
                warnings.warn(
                    f"{path}, line {number} is incomplete and left out: its run was being stored "
                    f"when the writer was stopped.",
                    stacklevel=3,
                )
                return _last_of_each(found), True
            raise ResultsError(
                f"{path}, line {number} is damaged. {error} Remove that line, or restore the "
                f"file; the other lines are untouched."
            ) from None
    return _last_of_each(found), False


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _last_of_each(results: Iterable[Result]) -> list[Result]:
    last: dict[tuple[str, int], Result] = {}
    for result in results:
        if result.error is None or last.get(result.key) is None or last[result.key].error:
            last[result.key] = result
    return list(last.values())


# ---------------------------------------------------------------------------- writing


@checked
def append_result(path: str | os.PathLike[str], result: Result) -> None:
    """Append one line, waiting for other writers; it is on the disk when this returns.

    Raises:
        ResultsError: if the file cannot be written; it is as it was before.
    """
    with ResultWriter(path, wait=True) as writer:
        writer.append(result)


class ResultWriter:
    """Appends lines to a results file that nobody else writes to meanwhile.

    Opening it makes the file and its folder, so that trouble shows before anything is computed,
    and changes nothing in a file that is there.  The first append removes an incomplete last
    line: its run is not stored and will be done again.

    Args:
        path: the file; one that is there and not empty must be a results file.
        wait: wait until another writer is done, instead of raising.

    Raises:
        ResultsError: if the file cannot be written to, is something else than a results file
            (it stays as it is), or another writer has it.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: bool = False) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise ResultsError(
                f"Cannot write results to {self.path}: {error.strerror or error}."
            ) from None
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise ResultsError(f"{self.path} is no regular file; name another one.")
            self._lock(wait)
            self._whole, self._unended = self._look()
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, result: Result) -> None:
        """Write one line with one call and flush it to the disk.

        A file that was deleted since it was opened is written anew, with all its lines.

        Raises:
            ResultsError: if that does not work, or another file has taken the place of this one;
                the file is as it was before.
        """
        line = result.to_json().encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            self._stay_in_place()
            if self._whole < size:
                os.ftruncate(self._descriptor, self._whole)
                size = self._whole
            text = b"\n" + line if self._unended else line
            if os.write(self._descriptor, text) != len(text):
                raise OSError(errno.ENOSPC, "No space left on the disk")
            os.fsync(self._descriptor)
            self._whole, self._unended = size + len(text), False
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise ResultsError(
                f"Cannot write to {self.path}: {error.strerror or error}. What was stored before "
                f"is kept; start again and the rest is computed."
            ) from None

    def close(self) -> None:
        """Close the file and let others write."""
        os.close(self._descriptor)

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self, wait: bool) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks; one writer at a time is up to you
            return
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not wait:
                    raise ResultsError(
                        f"Another process is writing to {self.path}. Wait for it, or choose "
                        f"another file."
                    ) from None
                time.sleep(0.01)
            except OSError:  # a file system without locks
                return

    def _look(self) -> tuple[int, bool]:
        """Return how many bytes are whole lines, and whether the last lacks its line break.

        Raises:
            ResultsError: unless a line of the file is a result, or the file is the beginning of
                one.
        """
        content = self.path.read_bytes()
        *lines, last = content.split(b"\n")
        whole = len(content) - len(last)
        if not last or _is_json(last.decode("utf-8", errors="replace")):
            lines, last, whole = [*lines, last], b"", len(content)
        ours = any(_is_result(line) for line in lines)
        if content and not ours and not (not any(lines) and last.startswith(_START[: len(last)])):
            raise ResultsError(
                f"{self.path} is no results file; nothing was changed. Name another file."
            )
        return whole, bool(content[:whole]) and not content[:whole].endswith(b"\n")

    def _stay_in_place(self) -> None:
        """See that the path still leads to the open file; write it anew where it is gone."""
        own = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            self._write_anew()
            return
        if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino):
            raise ResultsError(
                f"Another file has taken the place of {self.path} since the run began; it was not "
                f"touched. Move it away and start again."
            )

    def _write_anew(self) -> None:
        warnings.warn(
            f"{self.path} was deleted during the run; it is written anew, with all its lines.",
            stacklevel=4,
        )
        size = os.fstat(self._descriptor).st_size
        content = b""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while len(content) < size and (more := os.read(self._descriptor, size - len(content))):
            content += more
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        fresh = os.open(self.path, flags, 0o666)
        try:
            if os.write(fresh, content) != len(content):
                raise OSError(errno.ENOSPC, "No space left on the disk")
            os.dup2(fresh, self._descriptor)  # only now: until here the old lines are in reach
        except OSError:
            self.path.unlink()
            raise
        finally:
            os.close(fresh)
        self._lock(wait=False)


_START = b'{"experiment": '
"""How every line begins."""


def _is_result(line: bytes) -> bool:
    try:
        Result.from_json(line.decode("utf-8", errors="replace"))
    except ResultsError:
        return False
    return True
