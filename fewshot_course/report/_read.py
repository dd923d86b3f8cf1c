"""Read what a user brings: a table, an ``.npz`` file, or a folder of images."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fewshot_course._checks import UNLABELLED, check_number
from fewshot_course.data.images import resize_images
from fewshot_course.data.text_files import _label_order
from fewshot_course.report._table import (
    ENDINGS,
    MAX_BYTES,
    Column,
    as_words,
    days,
    encode,
    ending,
    guess,
    is_id,
    numbers,
    read_frame,
)

IMAGE_SIZE = 64
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS, MAX_SIDE = 64_000_000, 30_000
"""Largest picture: a small file may announce one that fills the memory."""
UNLABELLED_FOLDERS = ("unlabelled", "unlabeled")
LABELS = ("label", "labels", "target", "class", "category", "y", "species", "sentiment", "intent")
TEXTS = (
    "text",
    "texts",
    "sentence",
    "review",
    "message",
    "comment",
    "content",
    "body",
    "utterance",
)
"""Names of columns that are looked for, whatever their case, the first one first."""
SENTENCE = 6
"""Words from which a column holds sentences."""
MANY_VALUES = 20
"""Different numbers from which a label is taken for a measurement."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a user brought.

    Attributes:
        source: the file or folder.
        kind: "texts", "vectors" or "images".
        X: list of str; or vectors ``(n, d)`` float64, NaN where a value of a table is missing; or
            images ``(n, h, w[, c])`` in [0, 1].
        y: index into ``class_names``, or -1 where unknown, ``(n,)`` int64.
        class_names: in alphabetical order, or in numerical order if all are whole numbers.
        places: where each example stands, e.g. "line 7" or "cat/a.png".
        columns: names of the features of vectors.
        remarks: what was assumed and noticed while reading, for the report.
        table: how the columns of a table became features; empty for arrays.
        belongs: number of the person, device or day of each example, ``(n,)``, if it was named.
        ids: columns of a table that were left out, since they number the rows.
        suspects: columns that may name persons, devices or days, by which to split.
    """

    source: Path
    kind: str
    X: list[str] | np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]
    places: tuple[str, ...]
    columns: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    table: tuple[Column, ...] = ()
    belongs: np.ndarray | None = None
    ids: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """Indices of the examples with a label."""
        return np.flatnonzero(self.y != UNLABELLED)

    @property
    def unknown(self) -> np.ndarray:
        """Indices of the examples without a label."""
        return np.flatnonzero(self.y == UNLABELLED)

    @property
    def counts(self) -> np.ndarray:
        """Labelled examples of each class, ``(C,)``."""
        return np.bincount(self.y[self.known], minlength=len(self.class_names))

    def take(self, index: Any) -> Any:
        """Return some of the examples, a list of texts or an array."""
        if isinstance(self.X, list):
            return [self.X[i] for i in index]
        return self.X[np.asarray(index, dtype=np.int64)]


def read_examples(
    path: str | os.PathLike[str],
    *,
    label: str | None = None,
    text: str | None = None,
    group: str | None = None,
    image_size: int = IMAGE_SIZE,
) -> Examples:
    """Read labelled, and perhaps unlabelled, examples.

    Args:
        path: a table (``.csv``, ``.tsv``, ``.xlsx``, ``.parquet``, ``.jsonl``, each also with
            ``.gz`` behind it) with a column of labels, and one of texts or others of numbers,
            categories, truths and dates (an empty label means unknown); an ``.npz`` file with
            ``X`` (vectors ``(n, d)``, or images ``(n, h, w[, c])`` in [0, 1]) and ``y`` (whole
            numbers, -1 means unknown, or words, "" means unknown); or a folder with a sub-folder
            of images for each class, and perhaps one named ``unlabelled``.
        label: the column of labels; ``None``: one named "label", "target", "class" or the like.
        text: the column of texts; ``None``: one named "text", "review" or the like, or the only
            one that holds sentences.
        group: a column that says which rows belong together (a person, a device, a day); such
            rows never lie on both sides of a split.
        image_size: side of the square that images of a folder are resized to, >= 8.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ImportError: if the format needs a package that is not installed.
        ValueError: for another ending, or anything in the data that cannot be used; the message
            names the line, row, column or file.
    """
    check_number("image_size", image_size, low=8, high=512, integer=True)
    path = Path(path)
    if path.exists() and (path.is_dir() or ending(path) not in ENDINGS):
        for name, value in (("label", label), ("text", text), ("group", group)):
            if value is not None:
                raise ValueError(f"{name}={value!r} names a column, and {path.name} is no table.")
    if path.is_dir():
        found = _read_folder(path, image_size)
    elif not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}.")
    elif ending(path) in ENDINGS:
        found = _read_table(path, label, text, group)
    elif ending(path) == ".npz":
        found = _read_npz(path)
    else:
        raise ValueError(
            f"{path.name} ends in {path.suffix or 'nothing'!r}; expected a .csv file (or "
            f"{', '.join(ENDINGS[1:])}, each also as .gz), an .npz file, or a folder with a "
            f"sub-folder of images for each class."
        )
    found = _without_lonely(found)
    _check_classes(found)
    return found


def read_images(
    paths: Iterable[str | os.PathLike[str]], size: int = IMAGE_SIZE, colour: bool = True
) -> np.ndarray:
    """Read image files as the report does, in [0, 1].

    A picture is stretched to a square by area.  Transparent parts become white.

    Args:
        paths: image files.
        size: side of the square.
        colour: whether to keep the colour.

    Returns:
        Images ``(n, size, size, 3)``, or ``(n, size, size)`` without colour, float32.

    Raises:
        ValueError: if a file cannot be read as an image; the message names it.
    """
    images = np.stack([_read_image(Path(path), size)[0] for path in paths])
    return images if colour else _grey(images)


def _grey(images: np.ndarray) -> np.ndarray:
    """Return the brightness ``(n, h, w)`` of colour images (ITU-R BT.601)."""
    weights = np.array([0.299, 0.587, 0.114], dtype=images.dtype)
    return np.clip(images @ weights, 0.0, 1.0)


# ---------------------------------------------------------------------------- labels


def _encode(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the class names; the empty word is -1."""
    known = [word for word in words if word]
    names = sorted(set(known), key=_label_order(known))
    number = {name: index for index, name in enumerate(names)} | {"": UNLABELLED}
    return np.array([number[word] for word in words], dtype=np.int64), tuple(names)


def _without_lonely(examples: Examples) -> Examples:
    """Leave out classes of a single example, if two others remain, and say so."""
    counts = examples.counts
    lonely = np.flatnonzero(counts == 1)
    if not len(lonely) or len(counts) - len(lonely) < 2:
        return examples
    keep = np.flatnonzero(~np.isin(examples.y, lonely))
    number = np.cumsum(counts != 1) - 1
    y = examples.y[keep]
    names = [repr(examples.class_names[k]) for k in lonely]
    remark = (
        f"Left out, since a class needs two examples, one to learn from and one to test on: the "
        f"single example of {_some(names)}."
    )
    return replace(
        examples,
        X=examples.take(keep),
        y=np.where(y == UNLABELLED, UNLABELLED, number[y]),
        class_names=tuple(c for c, n in zip(examples.class_names, counts, strict=True) if n != 1),
        places=tuple(examples.places[i] for i in keep),
        remarks=(remark, *examples.remarks),
        belongs=None if examples.belongs is None else examples.belongs[keep],
    )


def _check_classes(examples: Examples) -> None:
    name, counts = examples.source.name, examples.counts
    for word in examples.class_names:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name} has the class {word!r}, which holds half a character or bytes that are no "
                f"UTF-8; no file could keep its name. Give it another one."
            ) from None
    if len(examples.known) == 0:
        raise ValueError(f"{name} has no labelled example.")
    if len(counts) < 2:
        raise ValueError(
            f"{name} has examples of the single class {examples.class_names[0]!r}; "
            f"expected two or more."
        )
    lonely = [repr(c) for c, n in zip(examples.class_names, counts, strict=True) if n < 2]
    if lonely:
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise ValueError(
            f"{name} has a single example of the class {', '.join(lonely[:5])}{more}: at least "
            f"two of each are needed, one to learn from and one to test on. "
            f"Label more, or leave the class out."
        )


# ---------------------------------------------------------------------------- tables


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table as the report does, cells as text; a saved model takes it as it is.

    Args:
        path: a table as for :func:`read_examples`.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the format needs a package that is not installed.
        ValueError: for another ending, or a file that is damaged or empty.
    """
    path = Path(path)
    if ending(path) not in ENDINGS:
        raise ValueError(
            f"{path.name} ends in {path.suffix or 'nothing'!r}; expected {', '.join(ENDINGS)}."
        )
    return read_frame(path)[0]


def _read_table(path: Path, label: str | None, text: str | None, group: str | None) -> Examples:
    frame, places, remarks = read_frame(path)
    label = _column_of(path.name, frame, "label", label, LABELS)
    for name, value in (("text", text), ("group", group)):
        if value is not None:
            _column_of(path.name, frame, name, value, ())
    remarks.append(f"The labels are those of the column {label!r}.")
    raw = frame[label].astype(str).str.strip()
    words = as_words(frame[label])
    unknown = sorted(set(raw[(words == "") & (raw != "")]))
    if unknown:
        remarks.append(f"Labels read as unknown: {', '.join(map(repr, unknown))}.")
    _check_targets(path.name, label, words)
    y, names = _encode(words.tolist())
    belongs = None
    if group is not None:
        belongs = pd.factorize(frame[group])[0].astype(np.int64)
    rest = frame.drop(columns=[label, *([group] if group is not None else [])])
    if rest.shape[1] == 0:
        raise ValueError(f"{path.name} has no column beside {label!r}; name texts, or numbers.")
    suspects = tuple(str(name) for name in rest.columns if _names_groups(str(name), rest[name]))
    if text is None:
        text = _text_column(rest)
    where = tuple(places)
    if text is not None:
        texts = frame[text].astype(str).str.strip().tolist()
        empty = [where for where, one in zip(places, texts, strict=True) if not one]
        if empty:
            raise ValueError(f"{path.name}: {_some(empty)} has no text.")
        unused = [str(name) for name in rest.columns if name != text]
        remarks.append(f"The texts are those of the column {text!r}.")
        if unused:
            remarks.append(f"Columns that were not used: {', '.join(unused)}.")
        return Examples(
            path,
            "texts",
            texts,
            y,
            names,
            where,
            remarks=tuple(remarks),
            belongs=belongs,
            suspects=suspects,
        )
    try:
        columns, more, ids = guess(rest, places)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not columns:
        raise ValueError(f"{path.name} has no column to learn from. {' '.join(more)}")
    return Examples(
        path, "vectors", encode(rest, columns), y, names, where,
        columns=tuple(f for column in columns for f in column.features),
        remarks=tuple(remarks + more), table=tuple(columns), suspects=suspects, ids=tuple(ids),
        belongs=belongs,
    )  # fmt: skip


def _column_of(
    file: str, frame: pd.DataFrame, role: str, wanted: str | None, usual: Sequence[str]
) -> str:
    """Return the column of a role: that which is named, or the first of the usual names."""
    names = [str(name) for name in frame.columns]
    if wanted is not None:
        if wanted in names:
            return wanted
        raise ValueError(
            f"{file} has no column {wanted!r} for --{role}; it has "
            f"{', '.join(map(repr, names[:12]))}."
        )
    low = {name.lower(): name for name in reversed(names)}
    for name in usual:
        if name in low:
            return low[name]
    raise ValueError(
        f"{file} has no column 'label'; its first line names {', '.join(map(repr, names[:8]))}. "
        f"Name the column of labels: --label NAME (label=...)."
    )


def _check_targets(file: str, label: str, words: pd.Series) -> None:
    """Raise where labels are no classes: a measurement, or several labels a row."""
    there = words[words != ""]
    values = numbers(there)
    if len(there) and values.notna().all() and there.nunique() > MANY_VALUES:
        whole = bool((values % 1 == 0).all())
        numbered = whole and np.ptp(values) + 1 == values.nunique()  # 0, 1, 2, ...: class numbers
        measured = not whole or (not numbered and len(there) < 3 * there.nunique())
    else:
        measured = False
    if measured:
        raise ValueError(
            f"{file}: the label {label!r} holds {there.nunique()} different numbers, such as "
            f"{there.iloc[0]}: a measurement, no class. This report is about classes. Cut it into "
            f"two or more ranges, or name another column with --label."
        )
    for separator in ("|", ";", ","):
        parts = there.str.split(separator, regex=False)
        several = parts.str.len() > 1
        singles = {part.strip() for row in parts for part in row}
        if several.sum() >= 2 and several.mean() > 0.2 and len(singles) < there.nunique():
            raise ValueError(
                f"{file}: the label {label!r} holds several labels a row, such as "
                f"{there[several].iloc[0]!r}. This report is about one class a row. Make a file a "
                f"label (yes or no), and a report of each."
            )


def _text_column(frame: pd.DataFrame) -> str | None:
    """Return the column of texts: by its name, or the only one that holds sentences."""
    low = {str(name).lower(): str(name) for name in reversed(list(frame.columns))}
    for name in TEXTS:
        if name in low:
            cells = as_words(frame[low[name]])
            if name in TEXTS[:2] or numbers(cells[cells != ""]).isna().mean() > 0.5:
                return low[name]
    found = []
    for name in frame.columns:
        words = as_words(frame[name])
        there = words[words != ""]
        if len(there) < 0.95 * len(words) or there.nunique() < 0.8 * len(there):
            continue
        if numbers(there).notna().any() or (days(there).notna().any() and frame.shape[1] > 1):
            continue
        if frame.shape[1] == 1 or there.str.split().str.len().median() >= SENTENCE:
            found.append(str(name))
    return found[0] if len(found) == 1 else None


def _names_groups(name: str, cells: pd.Series) -> bool:
    """Say whether a column may name persons, devices or days: an id that comes back."""
    low = name.lower()
    named = is_id(name) or any(
        word in low
        for word in ("patient", "subject", "person", "user", "session", "device", "group")
    )
    return named and 2 <= cells.nunique() <= 0.67 * len(cells)


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


# ---------------------------------------------------------------------------- npz


def _read_npz(path: Path) -> Examples:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(
                f"{path.name} unpacks to {unpacked:,} bytes; at most {MAX_BYTES:,} are read."
            )
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("X", "y") if name not in file.files]
            if missing:
                raise ValueError(
                    f"{path.name} has no array {' and no '.join(missing)}; it holds "
                    f"{', '.join(file.files) or 'nothing'}."
                )
            X, y = file["X"], file["y"]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(
            f"{path.name} holds Python objects, which are not read for safety (or is damaged): "
            f"save X and y as plain arrays of numbers."
        ) from None
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for a damaged file
        raise ValueError(f"{path.name} is damaged or no .npz file ({error}).") from None
    X = _check_array(path.name, X)
    y, names = _array_labels(path.name, y, len(X))
    places = tuple(f"row {i}" for i in range(len(X)))
    n = int((y == UNLABELLED).sum())
    remarks = (f"{n} labels of y are -1 or empty, which means unknown here. If -1 is a class of "
               f"yours, write its name instead.",) if n else ()  # fmt: skip
    if X.ndim == 2:
        columns = tuple(f"feature {j}" for j in range(X.shape[1]))
        X = X.astype(np.float64)
        return Examples(path, "vectors", X, y, names, places, columns, remarks)
    return Examples(path, "images", X.astype(np.float32), y, names, places, remarks=remarks)


def _check_array(name: str, X: np.ndarray) -> np.ndarray:
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{name}: X must hold numbers, got dtype {X.dtype}.")
    if X.ndim not in (2, 3, 4) or 0 in X.shape:
        raise ValueError(
            f"{name}: X must have shape (n, d), (n, h, w) or (n, h, w, c), got {X.shape}."
        )
    finite = np.isfinite(X.reshape(len(X), -1)).all(axis=1)
    if not finite.all():
        rows = [f"row {i}" for i in np.flatnonzero(~finite)]
        raise ValueError(f"{name}: X has NaN or infinite values in {_some(rows)} (counted from 0).")
    if X.ndim > 2 and (X.dtype.kind != "f" or X.min() < 0 or X.max() > 1):
        raise ValueError(
            f"{name}: X holds images of dtype {X.dtype} with values in [{X.min()}, {X.max()}]; "
            f"expected floats in [0, 1]. Divide by 255 first."
        )
    return X


def _array_labels(name: str, y: np.ndarray, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if y.shape != (n,):
        raise ValueError(f"{name}: y has shape {y.shape}, expected ({n},), a label a row of X.")
    if y.dtype.kind == "U":
        return _encode([str(word).strip() for word in y])
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iub":
        raise ValueError(f"{name}: y must hold whole numbers or words, got dtype {y.dtype}.")
    if y.dtype.kind != "b" and y.min() < UNLABELLED:
        raise ValueError(f"{name}: y holds the label {y.min()}; expected >= 0, or -1 for unknown.")
    return _encode(["" if label == UNLABELLED else str(int(label)) for label in y.tolist()])


# ---------------------------------------------------------------------------- images


def _read_folder(path: Path, size: int) -> Examples:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(
            f"the folder {path.name} has no sub-folders; expected one with images for each class."
        )
    images: list[np.ndarray] = []
    words: list[str] = []
    places: list[str] = []
    shapes: set[tuple[int, int]] = set()
    broken: list[str] = []
    ignored = [p.name for p in path.iterdir() if p.is_file() and not p.name.startswith(".")]
    for folder in folders:
        unlabelled = folder.name.lower() in UNLABELLED_FOLDERS
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        usable = [p for p in files if p.is_file() and p.suffix.lower() in IMAGE_ENDINGS]
        ignored += [f"{folder.name}/{p.name}" for p in files if p not in usable]
        before = len(images)
        for file in usable:
            try:
                image, shape = _read_image(file, size)
            except ValueError as error:
                broken.append(f"{folder.name}/{file.name} ({error})")
                continue
            images.append(image)
            shapes.add(shape)
            places.append(f"{folder.name}/{file.name}")
            words.append("" if unlabelled else folder.name)
        if len(images) == before and not unlabelled:
            reason = f"its files cannot be read: {broken[-1]}" if usable else (
                f"known endings are {', '.join(IMAGE_ENDINGS)}"
            )  # fmt: skip
            raise ValueError(f"the folder {path.name}/{folder.name} holds no image; {reason}.")
    if not images:
        raise ValueError(f"the folder {path.name} holds no image.")
    y, names = _encode(words)
    remarks = _image_remarks(shapes, sorted(ignored), size)
    if broken:
        remarks = (f"Left out, since they cannot be read: {_some(broken)}.", *remarks)
    X = np.stack(images)
    if not (np.ptp(X, axis=3) > 0.02).any():  # no colour anywhere
        X = _grey(X)
    return Examples(path, "images", X, y, names, tuple(places), remarks=remarks)


def _image_remarks(shapes: set[tuple[int, int]], ignored: list[str], size: int) -> tuple[str, ...]:
    remarks = []
    if shapes != {(size, size)}:
        sizes = sorted(shapes)
        came = " × ".join(map(str, sizes[0])) if len(sizes) == 1 else f"{len(sizes)} sizes"
        remarks.append(
            f"The images came as {came} (height × width) and were resized to {size} × {size}. "
            f"Detail that is smaller than that is lost; --image-size sets another size."
        )
    if any(max(s) > 1.5 * min(s) for s in shapes):
        remarks.append("Some images are far from square; they were stretched. Crop them first.")
    if ignored:
        remarks.append(f"Left out, since they are no images of a class: {_some(ignored)}.")
    return tuple(remarks)


def _read_image(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return an image ``(size, size, 3)`` float32 and the size it had, (height, width)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see _check_pixels
            opened = Image.open(path, formats=IMAGE_FORMATS)
        with opened:
            _check_pixels(*opened.size)  # of the header: nothing has been unpacked yet
            picture: Image.Image = ImageOps.exif_transpose(opened)
            height, width = picture.height, picture.width
            colour = _colour(_coarser(picture))
    except FileNotFoundError:
        raise ValueError(f"there is no image {path}.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image {path} cannot be read ({error}).") from None
    resized = resize_images(colour[None], (size, size))[0]
    return resized.astype(np.float32), (height, width)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"it has {width} × {height} pixels; at most {MAX_PIXELS:,} and {MAX_SIDE:,} a side "
            f"are read. Make it smaller"
        )


def _coarser(picture: Image.Image) -> Image.Image:
    """Average blocks of a large picture: nobody sees it when it is small, and memory is saved."""
    factor = min(picture.size) // 1024
    if factor < 2 or picture.mode.startswith(("I", "F")):
        return picture
    if picture.mode in ("1", "L"):
        return picture.convert("L").reduce(factor)
    clear = "A" in picture.getbands() or "transparency" in picture.info
    return picture.convert("RGBA" if clear else "RGB").reduce(factor)


def _colour(picture: Image.Image) -> np.ndarray:
    """Return red, green and blue ``(h, w, 3)`` in [0, 1]."""
    if picture.mode.startswith(("I", "F")):  # 16 bits a pixel; "L" would cut them at 255
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return np.repeat(np.clip(values / top, 0.0, 1.0)[..., None], 3, axis=2)
    if "A" in picture.getbands() or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
