"""What a saved model says of a file: a table of classes and probabilities."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from fewshot_course.report._model import Model, load_model, readable_mode
from fewshot_course.report._read import (
    IMAGE_ENDINGS,
    TEXTS,
    _column_of,
    _text_column,
    read_table,
)


def predict_file(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    text: str | None = None,
) -> pd.DataFrame:
    """Write what a saved model says of each example of a file.

    Args:
        model: the ``.safetensors`` file of a report.
        data: a table as for :func:`read_examples`, in which the columns are found by name (no
            labels are needed); or for images a folder, whose files are read with those of its
            sub-folders.
        out: the ``.csv`` file to write: where the example stands, its class, and the probability
            of each class.
        text: the column of texts; ``None``: found as in a report.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: if there is no such file, or no folder for ``out``.
        ValueError: for data that do not fit the model, or if ``out`` is a file that holds anything
            but predictions; it stays as it is.
    """
    out = Path(out)
    if out.suffix.lower() != ".csv":
        raise ValueError(f"out={str(out)!r} must end in .csv.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(out.parent)!r} does not exist; make it first.")
    _keep_foreign(out)
    fitted, data = load_model(model), Path(data)
    if not data.exists():
        raise FileNotFoundError(f"there is no file or folder {str(data)!r}.")
    places, X = _read(fitted, data, text)
    proba = fitted.predict_proba(X)
    table = pd.DataFrame({"where": places, "class": fitted.predict(X)})
    for name, column in zip(fitted.class_names, proba.T, strict=True):
        table[f"probability of {name}"] = column.round(6)
    _write(table, out)
    return table


def _keep_foreign(out: Path) -> None:
    """Raise if a file would be lost that no earlier call has written, such as the data itself."""
    if not out.exists():
        return
    start = b"where,class,probability of "
    if not out.is_file() or out.read_bytes()[: len(start)] != start:
        raise ValueError(
            f"out={str(out)!r} is there and holds something else than predictions; "
            f"name another file, or move it away."
        )


def _read(model: Model, data: Path, text: str | None) -> tuple[list[str], Any]:
    if model.kind == "images":
        if not data.is_dir():
            raise ValueError(f"data={str(data)!r} must be a folder: the model takes images.")
        files = sorted(
            p for p in data.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_ENDINGS
        )
        if not files:
            raise ValueError(f"the folder {data.name} holds no image.")
        return [file.relative_to(data).as_posix() for file in files], files
    if data.is_dir():
        raise ValueError(f"data={str(data)!r} is a folder; the model takes {model.kind}.")
    frame = read_table(data)
    places = [f"row {i + 1}" for i in range(len(frame))]
    if model.kind == "vectors":
        return places, frame
    found = text or _text_column(frame)
    if found is None:
        raise ValueError(
            f"{data.name} has no column {' or '.join(map(repr, TEXTS[:3]))}; name the column of "
            f"texts with --text."
        )
    column = _column_of(data.name, frame, "text", found, ())
    return places, frame[column].tolist()


def _write(table: pd.DataFrame, out: Path) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            table.to_csv(file, index=False)
        os.chmod(temporary, readable_mode())
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
